#include "trainer/checkpoint_gather.h"

#include <map>
#include <sstream>

#include "model/copy_box.h"
#include "trainer/checkpoint_slices.h"

namespace trireme {
namespace {

constexpr int kTag = 7001;  // of the tensor axis, where nothing else sends

}  // namespace

StageGather::StageGather(const ShardedModel& model, DType dtype) : model_(model), dtype_(dtype) {
  const Mesh& mesh = model.mesh();
  writer_ = mesh.tp().rank() == 0 && mesh.dp().rank() == 0;
  std::string header;
  for (const auto& p : model.parameters().all()) {
    if (p->tied_copy || (p->tp_replicated && mesh.tp().rank() != 0)) continue;
    for (const Piece& piece : p->pieces) {
      if (piece.box.numel() == 0) continue;
      mine_.push_back({p.get(), &piece});
      header += slice_name("value", piece.name, piece.box) + '\n';
    }
  }
  const std::vector<std::string> headers = mesh.tp().all_gather_strings(header);
  std::string summary;
  if (writer_) {
    // Tensor rank 0 holds some part of every tensor, so it knows their shapes.
    std::map<std::string, size_t> by_name;
    for (const Held& h : mine_)
      if (by_name.emplace(h.piece->name, tensors_.size()).second) {
        tensors_.push_back({h.piece->name, dtype, h.piece->global});
        summary += text(h.piece->name, '\t', tensors_.back().num_bytes(), '\t', mesh.pp().rank(), '\n');
      }
    for (const std::string& lines : headers) {
      placed_.emplace_back();
      std::istringstream in(lines);
      for (std::string line; std::getline(in, line);) {
        SliceName s = parse_slice_name(line, "a tensor rank's pieces");
        const auto found = by_name.find(s.tensor);
        TRIREME_ASSERT(found != by_name.end());
        check_box(s.box, tensors_[found->second].shape, s.tensor);
        placed_.back().push_back({found->second, std::move(s.box)});
      }
    }
  }
  for (const std::string& lines : mesh.world().all_gather_strings(summary)) {
    std::istringstream in(lines);
    Named n;
    while (std::getline(in, n.name, '\t') && in >> n.num_bytes >> n.stage) {
      all_.push_back(n);
      in.ignore(1);
    }
  }
}

void StageGather::gather(const std::vector<Tensor>& whole) const {
  const Mesh& mesh = model_.mesh();
  if (mesh.dp().rank() != 0) return;
  Communicator& tp = mesh.tp();
  if (!writer_) {
    for (const Held& h : mine_) {
      const Tensor part = empty(shape_of(h.piece->box), dtype_);
      copy_piece_out(h.parameter->value, *h.piece, part);
      tp.send(part, 0, kTag).wait();
    }
    return;
  }
  TRIREME_ASSERT(whole.size() == tensors_.size());
  for (int r = 0; r < tp.size(); ++r)
    for (size_t i = 0; i < placed_[r].size(); ++i) {
      const Placed& at = placed_[r][i];
      const bool all_of_it = at.box.numel() == whole[at.tensor].numel();
      const Tensor part = all_of_it ? whole[at.tensor].reshape(shape_of(at.box)) : empty(shape_of(at.box), dtype_);
      if (r == 0)
        copy_piece_out(mine_[i].parameter->value, *mine_[i].piece, part);
      else
        tp.recv(part, r, kTag).wait();
      if (!all_of_it) paste_box(part, at.box, whole[at.tensor]);
    }
}

}  // namespace trireme

// How checkpoints cut state into slices that no layout is written into: a slice is a rectangle of a global
// tensor, named "STATE|NAME|start:end,start:end" in the coordinates, and stored in the orientation, of the
// model file's tensor NAME.
#pragma once

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/safetensors.h"
#include "parallel/buckets.h"
#include "parallel/parameter.h"

namespace trireme {

std::string slice_name(const std::string& state, const std::string& tensor, const Box& box);

struct SliceName {
  std::string state, tensor;
  Box box;
};
// Throws FileError "where: ..." on anything that slice_name() does not make.
SliceName parse_slice_name(const std::string& name, const std::string& where);

// Part of a parameter's local elements, flat [offset, offset + piece.box.numel()), that is one rectangle.
// `piece` names the rectangle and describes the part seen as a tensor of shape `local`: see piece_view().
struct LocalSlice {
  Piece piece;
  int64_t offset = 0;
  Shape local;
};

// Local elements [begin, end) of a parameter as rectangles, padding left out: up to three a piece (the rest
// of a row, whole rows, the start of a row), since a ZeRO shard may begin and end inside rows.
std::vector<LocalSlice> slices_of(const Parameter& parameter, int64_t begin, int64_t end);

// fn(bucket's index, entry, begin, end of the entry's elements that are in this rank's shard), for each entry
// with any.
template <class Fn>
void for_each_shard_part(ParameterBuckets& buckets, Fn&& fn) {
  for (size_t i = 0; i < buckets.buckets().size(); ++i) {
    const Bucket& b = buckets.buckets()[i];
    for (const Bucket::Entry& e : b.entries) {
      const int64_t begin = std::max(e.offset, b.shard_begin) - e.offset;
      const int64_t end = std::min(e.offset + e.size, b.shard_begin + b.shard_size) - e.offset;
      if (begin < end) fn(i, e, begin, end);
    }
  }
}

// Copies between a slice's flat local elements, in a tensor [n] of which they are [at, at + numel), and the
// slice as stored.
void copy_slice_out(const Tensor& flat, int64_t at, const LocalSlice& slice, const Tensor& stored);
void copy_slice_in(const Tensor& stored, const LocalSlice& slice, const Tensor& flat, int64_t at);

// whole[box] = values, in the file's orientation, rank 1 or 2. REQUIRES: the box is inside; same dtype.
void paste_box(const Tensor& values, const Box& box, const Tensor& whole);

// All slices of a checkpoint's optimizer files. Opening maps the files and reads headers alone.
class SliceIndex {
 public:
  // Throws FileError on a damaged file and on a slice whose name does not fit its shape.
  static SliceIndex open(const std::vector<std::filesystem::path>& files);

  // `box` of `tensor` in `state`, put together from whichever slices hold it, f32. Throws FileError naming
  // state, tensor and box if an element of it is in no slice, or if two slices give different values for one.
  Tensor read(const std::string& state, const std::string& tensor, const Box& box) const;

 private:
  struct Slice {
    size_t file;
    std::string name;
    Box box;
  };
  std::filesystem::path folder_;
  std::vector<SafetensorsFile> files_;
  std::map<std::pair<std::string, std::string>, std::vector<Slice>> slices_;  // by state and tensor
};

}  // namespace trireme

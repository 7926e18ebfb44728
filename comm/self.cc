// The backend of a group of one rank: every collective is a copy or nothing.
#include "comm/self.h"

#include <unistd.h>

#include <cstring>

#include "comm/mailbox.h"

namespace trireme {
namespace {

class SelfBackend final : public Backend {
 public:
  SelfBackend(GroupInfo group, std::string host) : group_(std::move(group)) {
    label_ = text("comm[", group_.name, " 0/1, host ", host, "]");
    host_ = std::move(host);
  }

  void run(const Collective& c) override {
    const size_t num_bytes = static_cast<size_t>(c.count) * size_of(c.call.dtype);
    if (num_bytes && c.in != c.out) std::memmove(c.out, c.in, num_bytes);
  }
  std::shared_ptr<Backend> split(int color, int, const std::string& name) override {
    return make_self_backend({child_group_id(group_.id, num_splits_++, color), name, 0, group_.world_ranks}, host_);
  }
  std::shared_ptr<Transfer> transfer(const OpCall& call, void* data, size_t num_bytes) override {
    return mailbox_->post(call, 0, data, num_bytes, label_, [this, call] {
      throw CommError(text(label_, ": ", call, " would wait for ever: the other side of it is this rank itself"));
    });
  }
  const GroupInfo& group() const override { return group_; }
  const std::string& label() const override { return label_; }
  std::shared_ptr<JobLink> job() const override { return nullptr; }
  bool give_up() override { return true; }

 private:
  GroupInfo group_;
  std::string host_, label_;
  uint64_t num_splits_ = 0;
  std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
};

}  // namespace

std::shared_ptr<Backend> make_self_backend(GroupInfo group, std::string host) {
  return std::make_shared<SelfBackend>(std::move(group), std::move(host));
}

std::string host_name() {
  char name[256] = {};
  if (gethostname(name, sizeof name - 1) != 0) return "unknown";
  const std::string full = name;
  return full.substr(0, full.find('.'));
}

std::unique_ptr<Communicator> make_self_communicator(const std::string& name) {
  return make_communicator(make_self_backend({0, name, 0, {0}}, host_name()));
}

}  // namespace trireme

// Parameters and gradients of one rank in flat buffers ("buckets"), reduced over the data axis while backward still runs,
// and cut into the shards that ZeRO gives each data rank (Rajbhandari et al. 2020, arXiv:1910.02054).
//
//   zero 0: gradients all-reduced; every data rank updates everything.
//   zero 1: gradients reduce-scattered; a rank updates its 1/dp of each bucket, then values are gathered.
//   zero 2: as 1, and only the shard of the gradients persists: a bucket's full buffer lives from the moment backward
//           reaches it until it is reduced, once a micro-batch. One bucket is reduced while backward fills the next.
//
// Frozen parameters (Parameter::rate 0) lie in buckets of their own, which have no gradients and take part in nothing.
//
// A bucket is a run of readiness groups of one chunk. Inside it parameters that take no weight decay come first, and among
// each half those whose gradient is partial over the tensor axis, so that every fused operation is on one flat range.
#pragma once

#include <vector>

#include "parallel/mesh.h"
#include "parallel/parameter.h"

namespace trireme {

struct BucketOptions {
  int zero = 0;
  int64_t bucket_bytes = int64_t{32} << 20;  // of f32 gradients; a bucket is closed once it has as many
  DType dtype = DType::kF32;                 // of the values
  Device device;
};

struct Bucket {
  struct Entry {
    Parameter* parameter;
    int64_t offset, size;  // elements in the flat buffers
  };
  std::vector<Entry> entries;
  int64_t size = 0;           // elements, a multiple of dp * 16
  int64_t decay_begin = 0;    // entries from here on take weight decay
  int first_group = 0;        // complete when backward is through with this group
  int last_group = 0;
  bool frozen = false;        // holds parameters that are not trained: values alone, a shard of 0 elements
  bool tied = false;          // holds one tied embedding, whose gradient is summed over the pipeline's ends
  Tensor values;              // flat, [size]
  Tensor grads;               // flat f32 [size]; undefined between uses under zero 2
  // What this data rank updates: elements [shard_begin, shard_begin + shard_size) of the bucket.
  int64_t shard_begin = 0, shard_size = 0;
  Tensor shard_grads;         // f32 [shard_size], complete after finish()
  Work reducing;
  bool scattering = false;    // zero 2: reducing is under way, or its result not yet added to shard_grads
};

class ParameterBuckets {
 public:
  // Allocates values and gradients and points the parameters and their slots into them. `mesh` outlives this.
  ParameterBuckets(const ParameterList& parameters, const Mesh& mesh, const BucketOptions& options);

  std::vector<Bucket>& buckets() { return buckets_; }
  const BucketOptions& options() const { return options_; }

  // Once a step, before the first forward.
  void begin_step();
  // Called by the model as a micro-batch's backward enters and leaves a group. Collective over dp when `last` (zero 2:
  // always): starts the reduction of each bucket that is complete. Every data rank must make the same calls.
  void group_begins(int group);
  void group_done(int group, bool last_micro_batch);
  // Waits for all reductions, and sums tied gradients over the pipeline's ends. shard_grads are complete after it.
  void finish();

  // Square of the global gradient norm: every parameter once, whatever the layout. Collective over the mesh.
  // It is finite only if no gradient of any rank is NaN or Inf.
  double squared_norm() const;

  // zero 1 and 2: all-gathers the updated shards of bucket i into its values, asynchronously; then wait.
  void gather_values_async(size_t i);
  void wait_for_values();

  int64_t num_parameters() const;  // held by this rank, padding left out

 private:
  void allocate_grads(Bucket& bucket);
  void point_slots(Bucket& bucket);
  void reduce(Bucket& bucket);
  void take_in_shard(Bucket& bucket);

  const Mesh& mesh_;
  BucketOptions options_;
  std::vector<Bucket> buckets_;
  std::vector<Work> gathering_;
};

}  // namespace trireme

// What ranks (common/ranks.h) tell each other in a quantization: statistics of inputs, tensors, and what one of them has quantized.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/ranks.h"
#include "pipeline/awq_linear.h"
#include "pipeline/search_result.h"
#include "quant/input_statistics.h"
#include "quant/scale_search.h"

namespace salient::pipeline {

// The sums of all ranks' rows, the same on every rank, from those of the own rows. On the CPU, before quant::finish().
// `holds_back`: some rank may have rows that are held back.
void sum_statistics(quant::InputStatistics& statistics, bool holds_back, Ranks& ranks);

// The tensor of rank `from`: of any dtype and shape, on the CPU, or undefined.
void broadcast_tensor(at::Tensor& tensor, int from, Ranks& ranks);

// Its weight and bias.
void broadcast_linear(models::FloatLinear& linear, int from, Ranks& ranks);

// What the rank that searched has found.
void broadcast_found(std::optional<quant::ScaleSearchResult>& found, int from, Ranks& ranks);

// What one rank has quantized, kept until rank 0 takes it, which alone writes.
class RankParcel {
 public:
  RankParcel() = default;
  RankParcel(const RankParcel&) = delete;  // its sink refers to it
  RankParcel& operator=(const RankParcel&) = delete;

  // Keeps what is put. `like`: says whether what the searches find is wanted.
  TensorSink sink(const TensorSink& like);
  std::vector<LinearReport> reports;

  // To rank 0, which puts the tensors into `sink` and has the reports then. For rank 0's own parcels, whose sink nobody needs, this
  // does nothing.
  void hand_over(int from, const TensorSink& sink, Ranks& ranks);

 private:
  struct Put {
    std::string name;
    int64_t part = -1;  // element of the first dimension; -1 = the whole tensor
    at::Tensor tensor;
  };
  std::string bytes() const;
  void take(std::string_view bytes, const TensorSink& sink);

  std::vector<Put> puts_;
  SearchResult found_;
};

}  // namespace salient::pipeline

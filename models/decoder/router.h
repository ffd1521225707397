// Which experts of a mixture each token goes to, and with which weight.
//
//   scores     softmax or sigmoid of the router's logits, or, for kSoftmaxOfChosen and kSparseMixer, the logits themselves
//   choice     the largest of scores + correction, where there is a correction, in the best groups, where there are groups
//   weights    the scores of the chosen (without correction), divided by their sum where `normalize` says so, times scaling_factor
#pragma once

#include <ATen/core/Tensor.h>

#include "models/decoder/attention.h"
#include "models/decoder/block_weights.h"

namespace salient::models {

struct Routing {
  at::Tensor experts;  // int64 [rows, experts_per_token], different ones in a row
  at::Tensor weights;  // float32, the same shape
};

// x: [rows, hidden_size], the MLP's input. All in float32, the router's linear included. Which of equal scores is chosen is up to
// the library's topk.
Routing route(const DecoderConfig& config, const BlockWeights& weights, const at::Tensor& x);

// The rows that go to an expert, and their weights: int64 [n] in rising order, float32 [n].
struct ExpertRows {
  at::Tensor rows;
  at::Tensor weights;
};
ExpertRows rows_of_expert(const Routing& routing, int64_t expert);

// Adds one expert's part to `output` [rows, hidden_size], in place. `expert_rows` are those of `x` [rows, hidden_size].
void add_expert(const DecoderConfig& config, const MlpWeights& expert, int64_t index, const ExpertRows& expert_rows,
                const at::Tensor& x, at::Tensor& output, const BlockObserver& observer);

// The shared expert with its gate; undefined where the architecture has none. x: [rows, hidden_size].
at::Tensor shared_expert_forward(const DecoderConfig& config, const BlockWeights& weights, const at::Tensor& x,
                                 const BlockObserver& observer);

// All of a mixture: experts that are in memory, and the shared one. x: [..., hidden_size] -> the same shape.
at::Tensor mixture_forward(const DecoderConfig& config, const BlockWeights& weights, const at::Tensor& x,
                           const BlockObserver& observer);

}  // namespace salient::models

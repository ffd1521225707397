// What 8-bit activations and an 8-bit KV cache cost in quality.
#pragma once

#include <functional>
#include <vector>

#include "eval/evaluate.h"

namespace salient::eval {

// The model whose cost is asked for, run with these bits.
using LoadModel = std::function<LanguageModel(int activation_bits, int kv_bits)>;

// Runs the text of a perplexity task through the same weights with 16 bits, the reference, and with each kind of rounding:
// activations, KV cache, both. Of a model without quantized linears the KV cache alone, since nothing else is rounded. Two models
// are in memory at a time, beside those of the caller. Errors: invalid argument for a task without divergence; those of evaluate().
std::vector<RuntimeCost> measure_runtime_costs(const LoadModel& load, const TaskRequest& text, EvaluationOptions options);

}  // namespace salient::eval

// Watching what a model runs while it is evaluated: the way by which online calibration gathers its data. eval knows nothing of
// what is done with it; whoever starts an evaluation passes an observer in.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "models/decoder/decoder.h"
#include "models/text/tokenizer.h"

namespace salient::eval {

struct RunObserver {
  // A row of ids that the model has read, padding left out. `source`: the task's name. `response_begin`: index of the first id that
  // the model itself wrote, or -1 where none is its own.
  std::function<void(std::span<const models::TokenId> row, std::string_view source, int64_t response_begin)> row;
  // The inputs of linears for the same tokens, before their row is told. May be empty.
  models::InputObserver inputs;
};

// An observer of one task's runs; a value without an observer watches nothing.
struct RunWatch {
  const RunObserver* observer = nullptr;
  std::string_view source;

  const models::InputObserver* inputs() const { return observer != nullptr && observer->inputs ? &observer->inputs : nullptr; }
  void tell(std::span<const models::TokenId> row, int64_t response_begin = -1) const {
    if (observer != nullptr && observer->row) observer->row(row, source, response_begin);
  }
  // Whether rows of different lengths may not share a batch: a mixture's experts cannot tell padding from tokens.
  bool wants_equal_lengths(const models::DecoderConfig& config) const;
  // For rows padded on the right to the longest: their inputs, seen at real tokens.
  models::Observation right_padded(const std::vector<std::vector<models::TokenId>>& rows) const;
};

}  // namespace salient::eval

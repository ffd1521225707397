#include "pipeline/methods.h"

#include <algorithm>
#include <cctype>

namespace salient::pipeline {
namespace {

using quant::RoundingKind;
using quant::RoundingOptions;

constexpr RoundingOptions rounding(RoundingKind kind) {
  RoundingOptions options;
  options.kind = kind;
  return options;
}

constexpr RoundingOptions classic_gptq() {
  RoundingOptions options = rounding(RoundingKind::kGram);
  options.off_diagonal = 1.0;
  options.sweeps = 0;
  return options;
}

constexpr Method kMethods[] = {
    // name      scale  clip   rounding                            propagate_error
    {"rtn", false, false, rounding(RoundingKind::kNearest), true},
    {"gptq", false, false, classic_gptq(), true},
    {"adaround", false, true, rounding(RoundingKind::kAdaround), true},
    {"awq", true, true, rounding(RoundingKind::kGram), true},
};

}  // namespace

std::span<const Method> methods() { return kMethods; }

const Method* find_method(std::string_view name) {
  const auto same = [](char a, char b) { return std::tolower(static_cast<unsigned char>(a)) == b; };
  for (const Method& method : kMethods) {
    if (std::equal(name.begin(), name.end(), method.name.begin(), method.name.end(), same)) return &method;
  }
  return nullptr;
}

void apply_method(const Method& method, AwqOptions& awq) {
  awq.method = method.name;
  awq.scale = method.scale;
  awq.clip = method.clip;
  awq.rounding = method.rounding;
  awq.propagate_error = method.propagate_error;
}

}  // namespace salient::pipeline

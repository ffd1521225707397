// The search results of llm-awq (https://github.com/mit-han-lab/llm-awq, awq/quantize/pre_quant.py, run_awq and apply_awq): what
// `python -m awq.entry --run_awq --dump_awq FILE.pt` leaves.
//
//   {"scale": [(smooth module, (balance module, ...), tensor [in_features]), ...],
//    "clip":  [(module, tensor [out_features, groups, 1]), ...]}
//
// in torch.save's zip form. The smooth module (norm, linear or activation) is divided by the scales and the balance linears are
// multiplied by them; then each group's weights are cut to +- its value.
#pragma once

#include <filesystem>

#include "pipeline/search_result.h"

namespace salient::pipeline {

// By the first bytes: a zip file.
bool is_llm_awq_search(const std::filesystem::path& path);

// Nothing in the file is run: only lists, tuples, dictionaries, texts and tensors are taken. Errors: not found, io; corruption for
// anything else, with the entry that is not as above.
SearchResult read_llm_awq_search(const std::filesystem::path& path);

}  // namespace salient::pipeline

// A search result (pipeline/search_result.h) as a file: safetensors with the ending the user likes. Read are also the files of
// llm-awq's --dump_awq (pipeline/llm_awq_search.h).
//
//   scales.<smooth_name>   F32 [in_features of the balance linears]
//   clip_low.<module>      U8 [out_features, groups]: places in clip_values.<module>; or F32: the factors themselves
//   clip_high.<module>     the same
//   clip_values.<module>   F32 [up to 256]
//   clip_limit.<module>    F32 [out_features, groups]: the largest magnitude that is left of the scaled weight; instead of the three
//   __metadata__           format "awq-search"; model_type; fingerprint: of the weights; job: of the quantization that wrote it;
//                          settings: JSON; groups: JSON {smooth_name: {"balance": [module, ...], "kind": "duo", "ratio": 0.35}}
//
// Example: scales.model.layers.0.input_layernorm F32 [256], clip_low.model.layers.0.self_attn.v_proj U8 [128, 2].
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "pipeline/search_result.h"

namespace salient::pipeline {

inline constexpr const char* kSearchFormat = "awq-search";

// Whole or not at all. `job`: of search_file_job. Errors: io.
void write_search(const std::filesystem::path& path, const SearchResult& search, const std::string& job = "");

// What was searched for each block lies in a file of its own in the work folder until the last is done.
std::filesystem::path search_part(const std::filesystem::path& work_folder, int64_t block);
// Whether a file of a work folder is one.
bool is_search_part(const std::string& name);
// One file out of the parts of all blocks; `whole` says what is not of a block: model_type, fingerprint, settings. Memory: none of
// the tensors.
void join_search_parts(const std::filesystem::path& path, const std::filesystem::path& work_folder, int64_t blocks,
                       const SearchResult& whole, const std::string& job);

// Errors: not found, io; corruption, naming the tensor, for a file that is no search result, dtypes and shapes that are not as
// above, groups without scales and scales without a group.
SearchResult read_search(const std::filesystem::path& path);

// The job that wrote the file; empty when it is no search result of this program.
std::string search_file_job(const std::filesystem::path& path);

}  // namespace salient::pipeline

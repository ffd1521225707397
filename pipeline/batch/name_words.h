// What a model's name says without its quantization: "Llama-3-8B-Instruct-AWQ-w4-g128", "llama-3-8b-instruct.Q4_K_M.gguf" and
// "Llama-3-8B-Instruct" name one model. A name is taken as words between '-', '_', blanks and dots (a dot between digits, as in
// "0.6B", belongs to its word), whatever their case.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace salient::pipeline {

// "Qwen3-0.6B_AWQ.gguf" -> {"qwen3", "0.6b", "awq", "gguf"}.
std::vector<std::string> name_words(std::string_view name);

// Without the words that say how it was quantized, packed or converted ("awq", "w4", "g128", "q4_k_m", "4bit", "fp16", "gguf",
// ...).
std::vector<std::string> model_words(std::string_view name);

}  // namespace salient::pipeline

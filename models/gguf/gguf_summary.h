// What the head of a GGUF file says about it, for people and for models/io/detect.h.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "models/io/gguf_header.h"

namespace salient::models {

struct GgufTypeTotal {
  uint64_t tensors = 0;
  uint64_t values = 0;
  uint64_t bytes = 0;  // of data; 0 for a type whose block size is not known here
};

struct GgufSummary {
  uint32_t version = 0;
  std::string kind;          // general.type: "model" (where it is left out, too), "imatrix", ...
  std::string architecture;  // general.architecture; "" = not said
  std::string name;          // general.name; "" = not said
  std::string file_type;     // of general.file_type, as llama.cpp names it: "Q4_K_M"; "" = not said
  uint64_t tensors = 0;
  uint64_t parameters = 0;
  std::map<std::string, GgufTypeTotal> types;  // "Q4_K"; "type 99" for one that is not known here
  int64_t quantized_linears = 0;               // matrices in blocks, embeddings left out; stacked experts are one
  int64_t float_linears = 0;
  std::string tokenizer;   // "gpt2, words as qwen2, 4096 tokens, chat template"; "" = none
  std::string importance;  // what is said of the importance matrix that chose the codes: "imatrix.gguf, data calib.txt"; "" = none
  uint64_t split_count = 1;  // files that the model lies in

  // Nothing in blocks.
  bool is_float() const;
  // Of the data, without padding; 0 where a type's size is not known.
  double bits_per_weight() const;
};

// `where` opens error texts. Errors: corruption for keys of another type than llama.cpp's, rows that are no multiple of the block.
GgufSummary summarize_gguf(const GgufHeader& header, const std::string& where);
// Of a file; the data need not be there. Nothing when it does not begin with "GGUF". Errors: those of parse_gguf_header, too.
std::optional<GgufSummary> read_gguf_summary(const std::filesystem::path& path);

// "Q4_K_M: 24 Q4_K, 5 Q6_K, 13 F32; 4.83 bits per weight".
std::string describe_weights(const GgufSummary& summary);

// llama.cpp's name of a general.file_type (enum llama_ftype, "type 99" for others).
std::string gguf_file_type_name(uint32_t id);

// The GGUF file that `model` is or holds: a file that begins with "GGUF" or is named .gguf, or the only .gguf file of a folder
// without safetensors files. Errors: invalid argument for a folder of several.
std::optional<std::filesystem::path> find_gguf_model(const std::filesystem::path& model);

}  // namespace salient::models

// What a model file that is not safetensors says about itself in its first or last bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace salient::models {

// What the header says (models/io/gguf_header.h); the data need not be there.
struct GgufSummary {
  uint32_t version = 0;
  uint64_t tensors = 0;
  uint64_t parameters = 0;
  std::map<std::string, uint64_t>
      type_bytes;  // "Q4_K" -> bytes of data; 0 for a type whose block size is not known here ("type 99")
};

// Nothing when the file does not begin with "GGUF". Errors: those of parse_gguf_header.
std::optional<GgufSummary> read_gguf_summary(const std::filesystem::path& path);

// True for a zip archive that holds "constants.pkl", as torch.jit.save writes (torch.save does not).
bool is_torchscript(const std::filesystem::path& path);

}  // namespace salient::models

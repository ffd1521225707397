// What a model file that is neither safetensors nor GGUF says about itself in its last bytes.
#pragma once

#include <filesystem>

namespace salient::models {

// True for a zip archive that holds "constants.pkl", as torch.jit.save writes (torch.save does not).
bool is_torchscript(const std::filesystem::path& path);

}  // namespace salient::models

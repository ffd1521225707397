// From what a user names a model by to the folder it lies in.
#pragma once

#include <filesystem>
#include <string>

namespace salient::models {

// A folder path, or "org/name" (optionally "org/name@revision") in the local Hugging Face cache: HF_HUB_CACHE, else HF_HOME/hub, else
// ~/.cache/huggingface/hub, layout models--org--name/{refs/main, snapshots/<commit>}. Nothing is ever downloaded.
// Errors: not found; the hint gives the download command ("hf download org/name").
std::filesystem::path resolve_model_folder(const std::string& name_or_path);

}  // namespace salient::models

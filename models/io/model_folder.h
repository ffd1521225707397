// From what a user names a model by to the folder it lies in.
#pragma once

#include <filesystem>
#include <string>

namespace salient::models {

// Where downloaded models lie: HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else ~/.cache/huggingface/hub.
std::filesystem::path hugging_face_cache();

// A folder path (wins when it exists), or "org/name", "org/name@revision" (branch, tag, or commit id, of which 7 characters are
// enough) in hugging_face_cache(), layout models--org--name/{refs/main, snapshots/<commit>}. Nothing is ever downloaded. Errors:
// not found, naming every place looked at and near names there; the hint gives the download command ("hf download org/name").
// Invalid argument for a file (resolve_model takes some).
std::filesystem::path resolve_model_folder(const std::string& name_or_path);

// The same, and a file that exists is taken as it is: a GGUF file, or a TorchScript module with its tokenizer beside it.
std::filesystem::path resolve_model(const std::string& name_or_path);

// What a model is called by where it lies: the last part of its absolute path, without ".gguf".
// "models/demo/" -> "demo", "." in it -> "demo", "x/tiny-Q4_K_M.gguf" -> "tiny-Q4_K_M".
std::string model_name(const std::filesystem::path& path);

}  // namespace salient::models

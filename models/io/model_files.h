// The files of a model by name. They lie in its folder; a LoRA adapter (models/io/adapter.h) has the weights and config.json of its
// base, and of the other files its own before the base's.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace salient::models {

// The folder; of an adapter the adapter's and its base's. Errors: those of adapter_base.
std::vector<std::filesystem::path> model_folders(const std::filesystem::path& folder);

// Where the file `name` of a model lies; it need not be there. Of an adapter: config.json out of the base, README.md and
// training_metadata.json out of the adapter, the rest out of the adapter where it is there, else out of the base. An adapter with a
// tokenizer.json has a whole tokenizer: then no file of the base's is mixed into it, and its tokenizer_config.json with a chat
// template hides the base's chat_template.jinja. Errors: those of adapter_base.
std::filesystem::path model_file(const std::filesystem::path& folder, std::string_view name);

// Name -> path of all regular files that a model's folder has; of an adapter, those of its base as model_file() finds them,
// adapter_config.json and adapter_model.safetensors. What else a trainer left beside an adapter (optimizer.pt) is not the model's.
std::map<std::string, std::filesystem::path> list_model_files(const std::filesystem::path& folder);

// Whether an index may name this file: its names must not lead out of its folder.
bool is_plain_file_name(std::string_view name);

}  // namespace salient::models

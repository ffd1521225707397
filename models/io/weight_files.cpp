#include "models/io/weight_files.h"

#include <algorithm>
#include <set>
#include <string>
#include <system_error>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "common/text.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/model_files.h"

namespace salient::models {
namespace fs = std::filesystem;

WeightFiles find_weight_files(const fs::path& folder) {
  WeightFiles files;
  if (fs::is_regular_file(folder)) {
    if (to_lower(folder.extension().string()) == ".safetensors") {
      files.safetensors.push_back(folder);
    } else if (find_gguf_model(folder)) {
      files.gguf.push_back(folder);
    }
    return files;
  }
  const fs::path index = folder / "model.safetensors.index.json";
  if (fs::exists(folder / "model.safetensors")) {
    files.safetensors.push_back(folder / "model.safetensors");  // readers prefer it to an index
  } else if (fs::exists(index)) {
    const Json map = require<Json>(read_json_file(index), "weight_map", index.string());
    std::set<std::string> names;
    if (!map.is_object())
      fail(ErrorKind::kCorruption, "{}: weight_map is a JSON {}, expected an object", index.string(), map.type_name());
    for (const auto& [tensor, file] : map.items()) names.insert(require<std::string>(map, tensor, index.string()));
    for (const std::string& name : names) {
      if (!is_plain_file_name(name))
        fail(ErrorKind::kCorruption, "{}: names the file '{}', expected a file name without folders", index.string(), name);
      std::error_code error;  // a name may be too long for any file
      if (!fs::exists(folder / name, error))
        fail(ErrorKind::kNotFound, "{}: the shard {} is missing, {} names it", folder.string(), name, index.filename().string());
      files.safetensors.push_back(folder / name);
    }
  }
  const bool search = files.safetensors.empty();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    const std::string extension = to_lower(entry.path().extension().string());
    if (entry.path().filename().string().front() == '.' || !entry.is_regular_file()) continue;
    if (search && extension == ".safetensors") files.safetensors.push_back(entry.path());
    if (extension == ".gguf") files.gguf.push_back(entry.path());
    if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ts")
      files.pickled.push_back(entry.path());
  }
  for (auto* list : {&files.safetensors, &files.gguf, &files.pickled}) std::sort(list->begin(), list->end());
  return files;
}

}  // namespace salient::models

// Whether all files of a model are there, and whether they still change.
//
// The writers of this program give a folder or file its name when it is whole (work_folder.h, AtomicFile). Others write in place: a
// checkpoint counts as complete when config.json and tokenizer.json are there, when every shard that the index names is there and
// as long as its header says, and when no shard stands without an index. A GGUF file is as long as its head says, a TorchScript
// file ends in its archive's directory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "pipeline/batch/model_listing.h"

namespace salient::pipeline {

// "" = all is there; else what is missing, without the path where it is that of the model. Reads heads of files only.
std::string why_incomplete(const std::filesystem::path& model, ModelKind kind);

struct FileStamp {
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  int64_t changed_ns = 0;  // of the inode: what no program can set back

  bool operator==(const FileStamp&) const = default;
};
using FileStamps = std::map<std::filesystem::path, FileStamp>;

// Of the files that a model is made of: those directly in its folder but for hidden ones, model card and quantization metadata, to
// which figures are added later; of a file that is a model itself, the file and the tokenizer's beside it. Files that vanish
// meanwhile are left out.
FileStamps file_stamps(const std::filesystem::path& model);

// Seconds since the last of them changed, by this machine's clock; negative where another machine's clock is ahead.
double seconds_since_change(const FileStamps& stamps);

}  // namespace salient::pipeline

// The rows of a task's splits, out of local files. Nothing is ever downloaded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "eval/task.h"

namespace salient::eval {

// Where the user says a task's data are.
struct DataSource {
  // The file of the evaluated split, or a folder with a file for each split: <split>.jsonl, <dataset_name>/<split>.jsonl or
  // <dataset_name>_<split>.jsonl, or any other extension of models/text/dataset.h; or the same with -00000-of-00001.parquet, also
  // below data/, as Hugging Face's hub stores a split. Empty: what the task says.
  std::filesystem::path path;
  std::map<std::string, std::filesystem::path> splits;  // files of single splits; they win
};

struct TaskRows {
  std::filesystem::path file;
  std::string sha256;                 // of the file
  std::vector<Json> rows;             // after row_filter and process_docs
  std::vector<int64_t> line_numbers;  // where each row starts, from 1
};

// The file of a split: of `source`, else of the task's data_files, else the split's name where it is a file with an extension, else
// dataset_path where that is a file or folder. A folder of `source` must hold it. Errors: invalid argument with the way to name
// one; not found for files that are named but not there.
std::filesystem::path find_split(const TaskDefinition& task, const std::string& split, const DataSource& source);

// Errors: those of find_split and read_dataset; corruption for rows that process_docs cannot use.
TaskRows load_split(const TaskDefinition& task, const std::string& split, const DataSource& source);

// Whether a file holds rows, by its extension; any other is one text.
bool holds_rows(const std::filesystem::path& file);

}  // namespace salient::eval

// answers: what models have answered, as the store keeps it, and what of it can go.
#include <filesystem>

#include "common/error.h"
#include "common/table.h"
#include "common/text.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/store.h"

namespace salient::pipeline {
namespace {
namespace fs = std::filesystem;

constexpr const char* kThere = "there";
constexpr const char* kChanged = "changed";
constexpr const char* kGone = "gone";
constexpr const char* kUnreachable = "unreachable";
constexpr const char* kUnknown = "unknown";

bool is_there(const fs::path& path) {
  std::error_code code;
  return fs::exists(path, code);
}

// A disk that is not mounted takes the folders of its models along: whoever deletes a model leaves the folder that it lay in.
const char* state_of_absent(const fs::path& model) { return is_there(model.parent_path()) ? kGone : kUnreachable; }

// Whether the model can still be asked the same: its answers are known by the hash of its files.
std::string state_of(Store& store, const AnsweringModel& model) {
  if (model.id == 0) return kUnknown;
  if (!is_there(model.path)) return state_of_absent(model.path);
  try {
    return model_hash(store, model.path) == model.hash ? kThere : kChanged;
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kNotFound) return state_of_absent(model.path);
    throw;
  }
}

bool matches(const std::string& pattern, const AnsweringModel& model) {
  return !pattern.empty() && model.name.find(pattern) != std::string::npos;
}

struct AnswersRow {
  AnsweringModel model;
  std::string state;
};

std::string name_of(const AnsweringModel& model) { return model.id == 0 ? "(of an older version)" : model.name; }

Json row_json(const AnswersRow& row) {
  return {{"model", row.model.name}, {"path", row.model.path},       {"hash", row.model.hash},   {"runtime", row.model.runtime},
          {"state", row.state},      {"answers", row.model.answers}, {"bytes", row.model.bytes}, {"used", row.model.used}};
}

// With what has not yet gone from the write-ahead log into it.
int64_t bytes_on_disk(const fs::path& store) {
  int64_t bytes = 0;
  for (const fs::path& file : {store, fs::path(store.string() + "-wal")}) {
    std::error_code code;
    const auto size = fs::file_size(file, code);
    if (!code) bytes += static_cast<int64_t>(size);
  }
  return bytes;
}

// `left`: what stays though its files are not there.
void drop(Store& store, const std::vector<AnswersRow>& rows, const std::vector<AnswersRow>& left, bool json) {
  const int64_t before = bytes_on_disk(store.path());
  std::vector<int64_t> ids;
  Json list = Json::array();
  for (const AnswersRow& row : rows) {
    ids.push_back(row.model.id);
    list.push_back(row_json(row));
  }
  const int64_t dropped = store.drop_answers(ids);
  const int64_t after = ids.empty() ? before : store.compact();
  if (json) {
    Json left_list = Json::array();
    for (const AnswersRow& row : left) left_list.push_back(row_json(row));
    return print_json(
        {{"dropped", list}, {"left", left_list}, {"answers", dropped}, {"store_bytes_before", before}, {"store_bytes", after}});
  }
  for (const AnswersRow& row : rows)
    print_text(
        fmt::format("dropped: {} {}, {}, {} answers\n", name_of(row.model), row.model.runtime, row.state, row.model.answers));
  for (const AnswersRow& row : left) {
    print_text(fmt::format("left: {} {}: the folder {} is not there, perhaps a disk that is not mounted; --drop-model drops it\n",
                           name_of(row.model), row.model.runtime, fs::path(row.model.path).parent_path().string()));
  }
  print_text(fmt::format("{} answers of {} model{} dropped; {}: {} before, {} now\n", dropped, ids.size(),
                         ids.size() == 1 ? "" : "s", store.path().string(), human_bytes(static_cast<uint64_t>(before)),
                         human_bytes(static_cast<uint64_t>(after))));
}

}  // namespace

void answers_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"answers", "",
       "Lists whose answers the store keeps, so that an evaluation goes on where it was or costs nothing the second time, and what "
       "they\n"
       "take. With --drop-...: deletes those that are named, and makes the file smaller. Results and evaluations stay.",
       "  salient answers\n"
       "  salient answers --drop-gone                     # models that are deleted, or whose files have changed since\n"
       "  salient answers --drop-gone --drop-unused 30    # these, and what no evaluation has wanted for 30 days\n"
       "  salient answers --drop-model demo_awq --store runs/salient.db\n"},
      {{"drop-gone", "",
        "of models whose files are not there any more, or are others; not where the folder around them is gone, too"},
       {"drop-unused", "DAYS", "of models that no evaluation has asked for so many days; 0: of all"},
       {"drop-model", "TEXT", "of models whose name holds this"},
       {"store", "FILE", "the database; default runs/salient.db"},
       {"json", "", "print as JSON"}},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const int64_t days = arguments.integer_or("drop-unused", -1, 0, 1 << 20);
  const std::string named = arguments.text_or("drop-model", "");
  const bool drops = arguments.flag("drop-gone") || days >= 0 || arguments.has("drop-model");
  Store store(arguments.text_or("store", "runs/salient.db"), StoreMode::kExisting);
  const std::string oldest = days >= 0 ? utc_days_ago(days) : "";
  std::vector<AnswersRow> rows;
  std::vector<AnswersRow> left;
  for (AnsweringModel& model : store.list_answering_models()) {
    std::string state = state_of(store, model);
    const bool gone = state == kGone || state == kChanged;
    const bool goes = (arguments.flag("drop-gone") && gone) || (days >= 0 && model.used <= oldest) || matches(named, model);
    const bool stays = arguments.flag("drop-gone") && state == kUnreachable && !goes;
    if (!drops || goes) {
      rows.push_back({std::move(model), std::move(state)});
    } else if (stays) {
      left.push_back({std::move(model), std::move(state)});
    }
  }
  if (drops) return drop(store, rows, left, arguments.flag("json"));
  Json list = Json::array();
  std::vector<std::vector<std::string>> table;
  for (const AnswersRow& row : rows) {
    list.push_back(row_json(row));
    table.push_back({name_of(row.model), row.model.runtime, row.state, std::to_string(row.model.answers),
                     human_bytes(static_cast<uint64_t>(row.model.bytes)), row.model.used, row.model.path});
  }
  if (arguments.flag("json")) return print_json(list);
  print_text(format_table({"Model", "Runs with", "Files", "Answers", "Size", "Last used", "Path"}, table));
}

}  // namespace salient::pipeline

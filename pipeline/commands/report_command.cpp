#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/report/report_data.h"
#include "pipeline/report/report_page.h"

namespace salient::pipeline {

void report_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"report", "",
       "Writes one HTML page of evaluated models: the verdict, every figure beside the base's, size against quality, errors and "
       "salience by "
       "layer,\n"
       "and every document with both models' answers. The page needs no network and no other file.",
       "  salient report\n  salient report --model '*_AWQ_*' -o awq.html\n  salient report --run 3 --store runs/salient.db\n"},
      {{"model", "PATTERN", "models whose name holds this, or matches it as a glob; default: the one that was evaluated last"},
       {"run", "N", "the models of this run"},
       {"out,o", "FILE", "default report.html"},
       {"store", "FILE", "the database; default runs/salient.db"}},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.has("model") && arguments.has("run"))
    fail(ErrorKind::kInvalidArgument, "salient report: found --model and --run, expected one of them");
  ReportSelection selection{arguments.text_or("model", ""), std::nullopt};
  if (arguments.has("run")) selection.run_id = arguments.integer_or("run", 0, 1, INT64_MAX);
  Store store(arguments.text_or("store", "runs/salient.db"), StoreMode::kExisting);
  const Json data = report_data(store, selection);
  const std::string page = report_page(data);
  const std::filesystem::path file = arguments.text_or("out", "report.html");
  write_file(file, page);
  print_text(fmt::format("{}: {} {}, {}\n", file.string(), data.at("models").size(),
                         data.at("models").size() == 1 ? "model" : "models", human_bytes(page.size())));
}

}  // namespace salient::pipeline

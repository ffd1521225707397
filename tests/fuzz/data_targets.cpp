#include "calibration/calibration_rows.h"
#include "calibration/response_spans.h"
#include "common/error.h"
#include "common/yaml.h"
#include "eval/python_literal.h"
#include "eval/task_yaml.h"
#include "fuzz/fuzz_targets.h"
#include "models/text/parquet_rows.h"
#include "models/text/utf8.h"

namespace salient::fuzz {
namespace {

// Rows of any of the layouts, with the answers of the assistant found in them.
void read_rows(std::string_view name, std::span<const std::byte> bytes) {
  static const auto finder = calibration::ResponseFinder::from_source(
      "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}",
      "chat_template.jinja");
  calibration::CalibrationSource source;
  source.file = fuzz_file(name, bytes);
  calibration::CalibrationRowOptions options;
  options.find_responses = true;
  options.vocab_size = 1000;
  (void)calibration::read_calibration_rows(source, finder, options);
}

}  // namespace

void fuzz_json_lines(std::span<const std::byte> bytes) { read_rows("rows.jsonl", bytes); }

void fuzz_csv(std::span<const std::byte> bytes) { read_rows("rows.csv", bytes); }

void fuzz_parquet(std::span<const std::byte> bytes) {
  models::read_parquet_rows(bytes, "rows.parquet", [](const Json& row) { (void)dump_json(row); });
}

void fuzz_task_yaml(std::span<const std::byte> bytes) {
  const ConfigNode root = ConfigNode::parse(as_text(bytes), "task.yaml");
  (void)eval::read_task_file(root, "task.yaml", [](const std::string& name, const std::string& from) -> eval::IncludedFile {
    fail(ErrorKind::kNotFound, "{}: includes {}", from, name);
  });
}

void fuzz_python_literal(std::span<const std::byte> bytes) {
  // Texts of data sets, whose ill-formed UTF-8 is mended when they are read.
  const auto value = eval::parse_python_literal(models::repair_utf8(as_text(bytes)));
  if (!value) fail(ErrorKind::kCorruption, "no literal");
  // What was read is printed as Python would, and read back as the same.
  const auto again = eval::parse_python_literal(eval::python_text(*value));
  if (value->is_structured() && (!again || *again != *value))
    fail(ErrorKind::kInternal, "read back otherwise: {}", eval::python_text(*value));
}

}  // namespace salient::fuzz

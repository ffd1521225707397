#include <filesystem>

#include "common/error.h"
#include "common/file.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/calibration_options.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"
#include "pipeline/importance.h"
#include "pipeline/torch_options.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

std::vector<OptionRow> option_rows() {
  std::vector<OptionRow> rows = {
      {"model", "MODEL",
       "a folder that Salient reads, or org/name in the local Hugging Face cache: the weights that will be quantized, smoothed or "
       "not"},
      calibration_files_option(),
      {"out", "FILE", "the file to make; must not exist"},
      {"samples", "N", "use the first N calibration texts; default: all"},
      {"max-seq-len", "N", "tokens of a calibration block; default 512"},
  };
  for (OptionRow& row : calibration_options()) rows.push_back(std::move(row));
  rows.push_back({"batch-tokens", "N", "tokens of a forward pass: bounds memory; default 4096"});
  rows.push_back({"device", "DEVICE", "cpu (default) or cuda"});
  rows.push_back(adapter_base_option());
  rows.push_back({"json", "", "print the result as JSON"});
  return rows;
}

// The folder of the hidden states, gone with the object once it is empty.
struct WorkFolder {
  explicit WorkFolder(const fs::path& at) : lock(models::lock_checkpoint_folder(at)) { refuse_others(); }
  ~WorkFolder() {
    std::error_code ignored;
    fs::remove(lock.folder(), ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  // What a killed call left is written over; anything else is somebody's.
  void refuse_others() const {
    for (const auto& entry : fs::directory_iterator(lock.folder())) {
      if (is_importance_work(entry.path().filename().string())) continue;
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: this name is needed for the work in progress, but the folder holds {}", lock.folder().string(),
                              entry.path().filename().string()))
          .with_hint("move that folder away, or choose another --out");
    }
  }

  FolderLock lock;  // a second call with the same --out is refused
};

}  // namespace

void imatrix_command(const std::vector<std::string>& words) {
  const Arguments arguments({"imatrix", "",
                             "Writes llama.cpp's importance matrix of a model, for llama-quantize --imatrix: the mean squares of "
                             "what each weight reads on\n"
                             "calibration rows. Smoothed weights need their own: measure the smoothed model.",
                             "  salient imatrix --model models/demo --calib calibration.jsonl --out imatrix.gguf\n"
                             "  llama-quantize --imatrix imatrix.gguf demo-F16.gguf demo-Q4_K_M.gguf Q4_K_M\n"},
                            option_rows(), words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const fs::path output = arguments.text("out");
  if (fs::exists(output))
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", output.string()))
        .with_hint("choose another --out, or remove the file");
  QuantizeJob job;
  job.model.model_folder = models::resolve_model_folder(arguments.text("model"));
  read_calibration(arguments, "train", /*optional=*/false, job);
  job.samples = arguments.integer_or("samples", 0, 0, int64_t{1} << 40);
  job.max_seq_len = arguments.integer_or("max-seq-len", job.max_seq_len, 1, 1 << 20);
  job.self_generated = 0;
  const CalibrationInput input = prepare_calibration(job);
  for (const std::string& note : input.notes) print_note(note);

  const WorkFolder work(work_folder_of(output));
  ProgressLine progress;
  ImportanceOptions options;
  options.work_folder = work.lock.folder();
  options.device = parse_device(arguments.text_or("device", "cpu"));
  options.batch_tokens = arguments.integer_or("batch-tokens", options.batch_tokens, 1, int64_t{1} << 40);
  options.on_progress = [&](int64_t done, int64_t total) { progress.show("imatrix", "blocks", done, total); };
  models::Imatrix imatrix = measure_importance(models::Checkpoint(job.model.model_folder), input.blocks, options);
  progress.finish();
  if (!job.calibration_file.empty()) imatrix.datasets.push_back(job.calibration_file.filename().string());
  for (const calibration::CalibrationSource& source : job.sources) imatrix.datasets.push_back(source.file.filename().string());
  models::write_imatrix(output, imatrix);

  const int64_t tokens = input.blocks.statistics.tokens;
  if (arguments.flag("json"))
    return print_json(
        {{"file", output.string()}, {"entries", imatrix.entries.size()}, {"tokens", tokens}, {"chunks", imatrix.chunk_count}});
  print_text(fmt::format("{}: {} weights, {} calibration tokens in {} blocks", output.string(), imatrix.entries.size(), tokens,
                         imatrix.chunk_count));
}

}  // namespace salient::pipeline

// The text of verify; what it says is found out in pipeline/artifact_check.h.
#include <algorithm>

#include "common/error.h"
#include "common/text.h"
#include "models/io/model_folder.h"
#include "pipeline/artifact_check.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/calibration_options.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {
namespace {

constexpr int64_t kAllBlocks = int64_t{1} << 40;

struct Verification {
  std::vector<CheckedFile> files;
  std::vector<CheckedFile> source;
  std::optional<Rederived> layers;
  std::vector<std::string> problems;  // empty = passed
};

bool is_problem(const CheckedFile& file) { return file.state == FileState::kChanged || file.state == FileState::kMissing; }

void add_problems(const std::vector<CheckedFile>& files, const std::string& of, std::vector<std::string>& problems) {
  for (const CheckedFile& file : files) {
    if (file.state == FileState::kMissing) problems.push_back(fmt::format("{}{} is missing", of, file.name));
    if (file.state == FileState::kChanged)
      problems.push_back(fmt::format("{}{} is changed: found SHA-256 {}, expected {}", of, file.name, file.found, file.expected));
  }
}

Json to_json(const std::vector<CheckedFile>& files) {
  Json result = Json::array();
  for (const CheckedFile& file : files) {
    result.push_back({{"file", file.name}, {"state", to_string(file.state)}, {"expected", file.expected}, {"found", file.found}});
  }
  return result;
}

Json to_json(const Verification& all) {
  Json result = {{"passed", all.problems.empty()}, {"files", to_json(all.files)}, {"problems", all.problems}};
  if (!all.source.empty()) result["source"] = to_json(all.source);
  if (all.layers) {
    const Rederived& layers = *all.layers;
    result["layers"] = {
        {"blocks", layers.blocks},       {"tensors", layers.tensors},         {"bytes", layers.bytes},
        {"different", layers.different}, {"same_inputs", layers.same_inputs}, {"other_inputs", layers.other_inputs}};
  }
  return result;
}

std::string files_line(const std::string& label, const std::vector<CheckedFile>& files) {
  const auto count = [&](FileState state) {
    return std::count_if(files.begin(), files.end(), [&](const CheckedFile& file) { return file.state == state; });
  };
  std::string text = fmt::format("{:<8} {} of {} as recorded (SHA-256)", label, count(FileState::kSame),
                                 static_cast<int64_t>(files.size()) - count(FileState::kUnrecorded));
  std::string others;
  for (const CheckedFile& file : files) {
    if (file.state == FileState::kUnrecorded) others += (others.empty() ? "" : ", ") + file.name;
  }
  return text + (others.empty() ? "" : "; not recorded: " + others) + "\n";
}

std::string to_text(const Verification& all) {
  std::string text = files_line("files", all.files);
  if (!all.source.empty()) text += files_line("source", all.source);
  if (all.layers) {
    const Rederived& layers = *all.layers;
    text += fmt::format(
        "layers   {} of {} tensors ({}) with the same bytes when they are made again: those of the first {}, and those of no "
        "block\n",
        layers.tensors - static_cast<int64_t>(layers.different.size()), layers.tensors, human_bytes(layers.bytes),
        layers.blocks == 1 ? "block" : fmt::format("{} blocks", layers.blocks));
    for (const std::string& line : layers.other_inputs) text += "         not made from the same inputs: " + line + "\n";
  }
  if (!all.problems.empty()) text += "\nproblems\n";
  for (const std::string& problem : all.problems) text += "  " + problem + "\n";
  return text + (all.problems.empty() ? "\nPASS\n" : "\nFAIL\n");
}

Rederived make_again(const Arguments& arguments, const std::filesystem::path& artifact, const std::filesystem::path& source) {
  RederiveOptions options;
  options.artifact = artifact;
  options.job.model.model_folder = source;
  read_calibration(arguments, "train", /*optional=*/true, options.job);
  options.blocks = arguments.text_or("blocks", "") == "all" ? kAllBlocks : arguments.integer_or("blocks", 1, 1, kAllBlocks);
  options.scratch = arguments.text_or("scratch", std::filesystem::temp_directory_path().string());
  options.job.model.on_message = print_note;
  ProgressLine progress;
  options.job.on_generation = [&](int64_t done, int64_t total) { progress.show("generate", "steps", done, total); };
  options.job.model.on_planning = [&](int64_t done, int64_t total) { progress.show("choose bits", "blocks", done, total); };
  options.job.model.on_progress = [&](int64_t done, int64_t total) {
    progress.show("make again", "blocks", done, std::min(total, options.blocks));
  };
  return rederive(options);
}

}  // namespace

void verify_command(const std::vector<std::string>& words) {
  std::vector<OptionRow> rows = {
      {"against-source", "DIR",
       "the float checkpoint: compares its hashes with those recorded, and makes the first blocks again from it"},
      {"blocks", "N", "blocks to make again; default 1, or all"},
      calibration_files_option(),
  };
  // How rows of a file are read is not in the metadata; what follows from them is.
  for (OptionRow& row : calibration_options()) {
    if (row.name == "text-rows" || row.name == "content" || row.name == "system-prompt" || row.name.ends_with("-field"))
      rows.push_back(std::move(row));
  }
  rows.push_back({"scratch", "DIR",
                  "where the blocks are made; needs room for the artifact once more; default: the system's temporary folder"});
  rows.push_back({"json", "", "print the result as JSON"});
  const Arguments arguments(
      {"verify", "ARTIFACT",
       "Whether an artifact is as it was made: every file against the SHA-256 in its quantization_metadata.json.\n"
       "With --against-source also whether it was made from that checkpoint: the source's files by their SHA-256, and the first\n"
       "blocks quantized again, with the recorded settings, to the same bytes.\n"
       "Ends with PASS, or with FAIL and exit code 7.",
       "  salient verify demo_awq\n"
       "  salient verify demo_awq --against-source models/demo --calib calibration_openmath_2000samples.jsonl\n"
       "  salient verify demo_awq --against-source models/demo --calib prompts.txt --blocks all\n"
       "  salient verify artifacts/Qwen3-Demo-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized --against-source models/demo\n"},
      rows, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("salient verify: found {} artifacts, expected one", arguments.positional().size()))
        .with_hint("salient verify ARTIFACT");
  }
  const std::filesystem::path artifact = arguments.positional().front();
  if (!arguments.has("against-source")) {
    for (const char* name : {"blocks", "calib", "scratch"}) {
      if (!arguments.has(name)) continue;
      throw Error(ErrorKind::kInvalidArgument, fmt::format("salient verify: --{} is about making blocks again", name))
          .with_hint("add --against-source DIR, the float checkpoint");
    }
  }
  Verification all;
  {
    ProgressLine progress;
    all.files = check_files(artifact, [&](int64_t done, int64_t total) { progress.show("verify", "files", done, total); });
  }
  add_problems(all.files, "", all.problems);
  if (arguments.has("against-source")) {
    const std::filesystem::path source = models::resolve_model_folder(arguments.text("against-source"));
    all.source = check_source(artifact, source);
    add_problems(all.source, "of the source: ", all.problems);
    // Of another source it would only be found to be another one, after hours.
    if (std::none_of(all.source.begin(), all.source.end(), is_problem) && all.problems.empty()) {
      all.layers = make_again(arguments, artifact, source);
      for (const std::string& name : all.layers->different)
        all.problems.push_back("tensor '" + name + "' has other bytes when it is made again");
    }
  }
  if (arguments.flag("json")) {
    print_json(to_json(all));
  } else {
    print_text(to_text(all));
  }
  if (!all.problems.empty()) {
    throw Error(ErrorKind::kCheckFailed,
                fmt::format("{}: {}{}", artifact.string(), all.problems.front(),
                            all.problems.size() > 1 ? fmt::format(", and {} more", all.problems.size() - 1) : ""));
  }
}

}  // namespace salient::pipeline

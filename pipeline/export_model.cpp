#include "pipeline/export_model.h"

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "models/gguf/gguf_mixture.h"
#include "models/io/checkpoint.h"
#include "models/torchscript/export.h"
#include "pipeline/artifact_files.h"
#include "pipeline/export_gguf.h"
#include "pipeline/model_card.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kTorchscript = "torchscript";

std::string source_name(const ExportOptions& options) { return options.source.empty() ? options.model_folder.filename().string() : options.source; }

ExportResult write_torchscript(const ExportOptions& options, const fs::path& path) {
  const models::Checkpoint checkpoint(options.model_folder);
  const models::TorchscriptFile file = models::export_torchscript(checkpoint, path, {.dtype = at::kFloat, .source = source_name(options)});
  return {{path.filename()},
          file.bytes,
          {fmt::format("{} linears from codes, {} from floats; forward(input_ids), make_cache(batch, capacity), step(input_ids, cache, position)",
                       file.quantized_linears, file.float_linears)}};
}

ExportResult write_gguf(const ExportOptions& options, const fs::path& path, const models::GgufFormat& format) {
  const models::Checkpoint checkpoint(options.model_folder);
  GgufExport written = export_gguf(checkpoint, format, path, source_name(options));
  return {{path.filename()}, written.bytes, std::move(written.notes)};
}

}  // namespace

std::vector<std::string> export_formats() {
  std::vector<std::string> names = {kTorchscript};
  for (const models::GgufFormat& format : models::gguf_formats()) names.emplace_back(format.name);
  return names;
}

ExportResult export_model(const ExportOptions& given, std::string_view format) {
  ExportOptions options = given;
  options.output = options.output.lexically_normal();
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "out/"
  const models::GgufFormat* gguf = models::find_gguf_format(format);
  if (gguf == nullptr && format != kTorchscript) {
    const std::vector<std::string> names = export_formats();
    fail(ErrorKind::kInvalidArgument, "export format '{}'{}: expected {}", format, did_you_mean(std::string(format), names), fmt::join(names, ", "));
  }
  if (options.output.empty() || options.output == ".") fail(ErrorKind::kInvalidArgument, "the output folder has no name");
  if (fs::exists(options.output)) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", options.output.string()))
        .with_hint("choose another output folder, or remove that one");
  }
  const auto write = [&](const fs::path& path) { return gguf != nullptr ? write_gguf(options, path, *gguf) : write_torchscript(options, path); };
  const std::string extension = gguf != nullptr ? ".gguf" : ".pt";
  if (options.output.extension() == extension) return write(options.output);
  const fs::path work = options.output.string() + ".partial";
  fs::create_directories(work);
  try {
    ExportResult result = write(work / (gguf != nullptr ? fmt::format("model-{}.gguf", gguf->file_type) : "model.pt"));
    copy_side_files(options.model_folder, work);
    write_file(work / kModelCard, export_card(options.model_folder, format));
    fs::rename(work, options.output);
    sync_folder(options.output.has_parent_path() ? options.output.parent_path() : fs::path("."));
    return result;
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(work, ignored);
    throw;
  }
}

}  // namespace salient::pipeline

#include "pipeline/export_model.h"

#include <functional>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "models/gguf/gguf_mixture.h"
#include "models/gguf/gguf_summary.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/model_folder.h"
#include "models/torchscript/export.h"
#include "models/torchscript/script_decoder.h"
#include "pipeline/artifact_files.h"
#include "pipeline/convert_codes.h"
#include "pipeline/export_float.h"
#include "pipeline/export_gguf.h"
#include "pipeline/model_card.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr const char* kTorchscript = "torchscript";
constexpr const char* kFloat = "float";

std::string source_name(const ExportOptions& options) {
  return options.source.empty() ? models::model_name(options.model_folder) : options.source;
}

// The folder in which an export is made, inside of the one that every job for this output uses: whatever another job has there is
// its own. It is gone with the object.
class Workplace {
 public:
  explicit Workplace(const fs::path& output)
      : lock_(models::lock_checkpoint_folder(work_folder_of(output))), folder_(lock_.folder() / "export") {
    for (const auto& entry : fs::directory_iterator(lock_.folder())) {
      if (entry.path() == folder_) continue;
      throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: holds the work of another job for the same output ({})",
                                                           lock_.folder().string(), entry.path().filename().string()))
          .with_hint("let that job go on to its end, remove the folder, or choose another --out");
    }
    fs::remove_all(folder_);  // of a call that was killed
    fs::create_directory(folder_);
  }
  ~Workplace() {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
    fs::remove(lock_.folder(), ignored);  // only when it is empty
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;

  const fs::path& folder() const { return folder_; }

 private:
  FolderLock lock_;
  fs::path folder_;
};

ExportResult write_torchscript(const ExportOptions& options, const fs::path& path) {
  const models::Checkpoint checkpoint(options.model_folder);
  const models::TorchscriptFile file =
      models::export_torchscript(checkpoint, path, {.dtype = at::kFloat, .source = source_name(options)});
  return {{path.filename()},
          file.bytes,
          {fmt::format("{} linears from codes, {} from floats; forward(input_ids), make_cache(batch, capacity), step(input_ids, "
                       "cache, position)",
                       file.quantized_linears, file.float_linears)}};
}

ExportResult write_gguf(const ExportOptions& options, const fs::path& path, const models::GgufFormat& format) {
  const models::Checkpoint checkpoint(options.model_folder);
  GgufExport written = export_gguf(checkpoint, format, path, source_name(options));
  return {{path.filename()}, written.bytes, std::move(written.notes)};
}

ExportResult write_float(const ExportOptions& options, const fs::path& folder) {
  FloatExport written = export_float(models::Checkpoint(options.model_folder), folder);
  return {std::move(written.files), written.bytes, std::move(written.notes)};
}

ExportResult write_converted(const ExportOptions& options, const fs::path& folder, WeightFormat format) {
  const models::Checkpoint checkpoint(options.model_folder);
  ConvertResult converted = convert_codes(checkpoint, format, folder);
  converted.notes.insert(converted.notes.begin(),
                         fmt::format("{} linears from {}: the same codes and scales", converted.linears, converted.from));
  return {std::move(converted.files), converted.bytes, std::move(converted.notes)};
}

// How a format is written into a folder that is there.
struct Writer {
  std::string extension;                                    // of the one file that the format is; "" = a folder it must be
  std::string file;                                         // its name in a folder
  std::function<ExportResult(const fs::path& path)> write;  // the file, or without one the folder
};

Writer find_writer(const ExportOptions& options, std::string_view format) {
  if (format == kTorchscript)
    return {".pt", "model.pt", [&options](const fs::path& path) { return write_torchscript(options, path); }};
  if (format == kFloat) return {"", "", [&options](const fs::path& path) { return write_float(options, path); }};
  if (const models::GgufFormat* gguf = models::find_gguf_format(format))
    return {".gguf", fmt::format("model-{}.gguf", gguf->file_type),
            [&options, gguf](const fs::path& path) { return write_gguf(options, path, *gguf); }};
  if (const auto packed = parse_weight_format(format); packed && row_of(*packed).convertible())
    return {"", "", [&options, packed](const fs::path& path) { return write_converted(options, path, *packed); }};
  const std::vector<std::string> names = export_formats();
  fail(ErrorKind::kInvalidArgument, "export format '{}'{}: expected {}", format, did_you_mean(std::string(format), names),
       fmt::join(names, ", "));
}

}  // namespace

std::vector<std::string> export_formats() {
  std::vector<std::string> names = {kTorchscript, kFloat};
  for (const models::GgufFormat& format : models::gguf_formats()) names.emplace_back(format.name);
  for (const WeightFormatRow& row : weight_formats()) {
    if (row.convertible()) names.emplace_back(row.name);
  }
  return names;
}

ExportResult export_model(const ExportOptions& given, std::string_view format) {
  ExportOptions options = given;
  options.output = options.output.lexically_normal();
  if (!options.output.has_filename()) options.output = options.output.parent_path();  // "out/"
  const Writer writer = find_writer(options, format);
  if (options.output.empty() || options.output == ".") fail(ErrorKind::kInvalidArgument, "the output folder has no name");
  if (fs::exists(options.output)) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: exists already", options.output.string()))
        .with_hint("choose another output folder, or remove that one");
  }
  if (!models::find_gguf_model(options.model_folder) && models::holds_script_model(options.model_folder)) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: is a TorchScript module, code and weights in one: it has no other format",
                                                     options.model_folder.string()))
        .with_hint("export the model that it was made from");
  }
  if (!writer.extension.empty() && options.output.extension() == writer.extension) return writer.write(options.output);
  const std::string card = export_card(options.model_folder, format);
  const Workplace work(options.output);
  ExportResult result = writer.write(writer.file.empty() ? work.folder() : work.folder() / writer.file);
  copy_side_files(options.model_folder, work.folder());
  write_file(work.folder() / kModelCard, card);
  fs::rename(work.folder(), options.output);
  sync_folder(options.output.has_parent_path() ? options.output.parent_path() : fs::path("."));
  return result;
}

}  // namespace salient::pipeline

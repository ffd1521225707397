// A checkpoint without a tokenizer as an evaluation takes models: with the bundled demo's, for tests that bring their tokens.
#pragma once

#include <filesystem>

#include "eval/language_model.h"
#include "models/io/checkpoint.h"

namespace salient::test {

inline eval::LanguageModel bare_language_model(const std::filesystem::path& folder, const models::DecoderOptions& options = {}) {
  eval::LanguageModel model = eval::load_language_model(SALIENT_SOURCE_DIR "/models/demo");
  model.decoder = models::Decoder::load(models::Checkpoint(folder), options);
  model.name = folder.filename().string();
  model.folder = folder;
  return model;
}

}  // namespace salient::test

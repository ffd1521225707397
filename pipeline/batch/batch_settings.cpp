#include "pipeline/batch/batch_settings.h"

namespace salient::pipeline {

eval::LanguageModelOptions base_options(const BatchSettings& settings) {
  eval::LanguageModelOptions options = settings.model;
  options.decoder.activation_bits = std::nullopt;
  options.decoder.kv_bits = std::nullopt;
  return options;
}

eval::LanguageModelOptions model_options(const BatchSettings& settings, const ListedModel& model) {
  eval::LanguageModelOptions options = model.original ? base_options(settings) : settings.model;
  options.name = model.name;
  return options;
}

}  // namespace salient::pipeline

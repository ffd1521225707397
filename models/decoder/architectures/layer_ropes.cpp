#include "models/decoder/architectures/layer_ropes.h"

#include "common/error.h"

namespace salient::models {
namespace {

constexpr std::string_view kFull = "full_attention";
constexpr std::string_view kSliding = "sliding_attention";

// What rope_parameters say about a layer type, or an empty object.
Json object_of(const ConfigReader& parameters, std::string_view layer_type) {
  const Json* object = parameters.find(layer_type);
  if (object == nullptr) return Json::object();
  if (!object->is_object())
    fail(ErrorKind::kCorruption, "{}: key '{}': found a JSON {}, expected an object", parameters.where(), layer_type,
         object->type_name());
  return *object;
}

}  // namespace

const Json* find_rope_object(const ConfigReader& config) {
  const Json* scaling = config.find("rope_scaling");
  if (scaling != nullptr && !scaling->empty()) return scaling;
  return config.find("rope_parameters");
}

void set_ropes_by_layer_type(const ConfigReader& config, DecoderConfig& decoder, const RopeDefaults& full,
                             const RopeDefaults& sliding, std::string_view sliding_theta_key) {
  Json full_object = Json::object();
  Json sliding_object = Json::object();
  if (const Json* found = config.find("rope_parameters"); found != nullptr) {
    const ConfigReader parameters(*found, config.where() + ": rope_parameters");
    if (!parameters.has(kFull) && !parameters.has(kSliding)) {
      fail(ErrorKind::kCorruption, "{}: expected an object for each of '{}' and '{}', the layer types of this model",
           parameters.where(), kFull, kSliding);
    }
    full_object = object_of(parameters, kFull);
    sliding_object = object_of(parameters, kSliding);
  }
  if (const Json* scaling = config.find("rope_scaling"); scaling != nullptr) {
    if (!scaling->is_object()) fail(ErrorKind::kCorruption, "{}: key 'rope_scaling': expected an object", config.where());
    full_object.update(*scaling);
  }
  if (sliding_object.is_object() && !sliding_object.contains("rope_theta")) {
    sliding_object["rope_theta"] = config.positive_or(sliding_theta_key, sliding.theta);
  }
  const auto parse = [&](const Json& object, std::string_view layer_type, const RopeDefaults& defaults) {
    const ConfigReader parameters(object, fmt::format("{}: rotary embedding of {}", config.where(), layer_type));
    return parse_rope_object(parameters, config, defaults, decoder.max_position_embeddings);
  };
  decoder.ropes = {parse(full_object, kFull, full), parse(sliding_object, kSliding, sliding)};
  for (LayerConfig& layer : decoder.layers) layer.rope = layer.sliding_window > 0 ? 1 : 0;
}

void set_rope_if_missing(const ConfigReader& config, DecoderConfig& decoder, const RopeDefaults& defaults, const Json& parameters) {
  if (find_rope_object(config) != nullptr) return;
  decoder.ropes.at(0) = parse_rope_object({parameters, config.where() + ": default rope_parameters"}, config, defaults,
                                          decoder.max_position_embeddings);
}

}  // namespace salient::models

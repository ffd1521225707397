// Multimodal models around a text model: config.json nests the text model's keys, and its tensors lie beside those of image
// encoders and projectors. Only the text model is read here; everything else of such a checkpoint is kept as it is.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "common/json.h"
#include "models/decoder/decoder_config.h"

namespace salient::models {

// Where the text model's tensors lie in a multimodal checkpoint.
struct TextSpelling {
  std::string_view root;  // what begins so is the text model's
  std::string_view block_prefix;
  std::string_view embedding;
  std::string_view final_norm;
  std::string_view lm_head;
};

// A text model that may be inside.
struct TextModel {
  std::string_view model_type;    // in the nested keys
  std::string_view architecture;  // row of models/decoder/architecture.h
  // JSON object: what its configuration class in transformers assumes where that differs from the row, or where the row needs the
  // key. Published files leave out what is so.
  std::string_view defaults;
  // What is different inside; called after the row's own function. nullptr = nothing is.
  void (*configure)(DecoderConfig& decoder) = nullptr;
};

struct Wrapper {
  std::string_view model_type;
  std::string_view models;                        // what people know by it: "Gemma 3 4B, 12B, 27B"
  std::span<const TextModel* const> text_models;  // those that are supported; the first is meant where the nested keys name none
  const TextSpelling* published;                  // how the names are spelled in published checkpoints
  // tie_word_embeddings is a key of the outer object; what its class assumes, and whether the nested key can say yes, too.
  bool tied = false;
  bool tied_by_text = false;
  bool flat = false;  // published files have the text model's keys beside the others, not nested
};

inline constexpr std::string_view kTextKey = "text_config";

std::span<const Wrapper> wrappers();
// nullptr when it is none of them.
const Wrapper* find_wrapper(std::string_view model_type);

// The keys of a text model alone, as a checkpoint of its own would have them.
struct TextConfig {
  Json config;
  std::string where;                 // opens error texts
  const Wrapper* wrapper = nullptr;  // nullptr: config.json was of a text model, and `config` is as it was
  const TextModel* text = nullptr;
};
// Errors: corruption (no nested object), unsupported (a text model that has not been tried in this wrapper).
TextConfig find_text_config(const Json& config, const std::string& where);

// The spelling that a checkpoint has, by its embedding; nullptr when it has none of them.
const TextSpelling* find_spelling(const std::function<bool(const std::string& tensor)>& contains);
// Names as `spelling` has them. Errors: internal, for an architecture whose outer tensors are not called as Llama's.
void set_spelling(DecoderConfig& config, const TextSpelling& spelling);

// Whether a tensor is of the image encoder, the projector or another part that is not the text model.
bool is_other_part(const TextSpelling& spelling, std::string_view tensor);
// The module of such a tensor that holds all that belongs together, without "model.": "visual", "vision_tower"; "" for a tensor
// that is in none ("image_newline").
std::string_view part_of(std::string_view tensor);
// A module's name without the spelling's beginning, so that it ends the name in every spelling: "layers.0.mlp.gate", "lm_head".
std::string_view without_spelling(const TextSpelling& spelling, std::string_view module);

}  // namespace salient::models

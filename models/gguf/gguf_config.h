// The configuration of a GGUF file's model as a config.json would say it: files of llama.cpp's converter as well as ours.
#pragma once

#include "common/json.h"
#include "models/io/gguf.h"

namespace salient::models {

// What parse_decoder_config (models/decoder/decoder_config.h) reads: sizes, options and rotary embeddings of the metadata, biases
// and tied embeddings as the tensors tell, token ids. Divisors of rotary frequencies (rope_freqs.weight) become a longrope scaling,
// which computes the same angles. Errors, with the file in front: unsupported (an architecture that is not in
// models/gguf/gguf_graphs.h; sizes that differ by layer); corruption (missing keys or keys of another type, absent tensors).
Json config_from_gguf(const GgufFile& file);

}  // namespace salient::models

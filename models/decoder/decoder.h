// A whole decoder for evaluation and generation: embedding, blocks, final norm, head; in float or from packed weights. Gradients
// are never kept.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/decoder/block.h"
#include "models/decoder/embedding.h"
#include "models/decoder/external_model.h"
#include "models/decoder/ragged_batch.h"
#include "models/decoder/token_step.h"

namespace salient::models {

struct DecoderOptions {
  at::ScalarType dtype = at::kFloat;  // float32, bfloat16 or float16: of activations and float weights
  at::Device device = at::kCPU;
  // 8: the inputs of quantized linears are rounded to int8, each token with a scale of its own (quant/int8_rows.h). 16: they stay
  // as computed. Nothing: what quantization_config says (compressed-tensors' input_activations), else 16.
  std::optional<int> activation_bits = {};
  // 8: keys and values are kept, and read, as int8 (KvScheme). 16: as computed. Nothing: as quantization_config says
  // (kv_cache_scheme), else 16. With 8 and a kv_cache_scheme its stored scales are used.
  std::optional<int> kv_bits = {};
};

// Keys and values of all blocks. Tensors are shared when a KvCache value is copied; grow_cache and select_cache make new ones.
struct KvCache {
  std::vector<KvCacheLayer> layers;
  int64_t rows = 0;                       // of the batch
  int64_t length = 0;                     // tokens that are filled, padding included
  int64_t capacity = 0;                   // tokens that fit
  std::shared_ptr<TokenStepMemory> step;  // of TokenStep, made when it is needed
};

// The same content with room for `capacity` tokens (at least its length). One layer is copied at a time, the old one freed.
void grow_cache(KvCache& cache, int64_t capacity);
// Keeps the batch rows `rows` (int64 [n], in that order) and drops the first `skip` tokens of each (padding that no row needs any
// more).
void select_cache(KvCache& cache, const at::Tensor& rows, int64_t skip);

// Copies the first `tokens` tokens of the cache's row `from` to its row `to`.
void copy_slot(KvCache& cache, int64_t from, int64_t to, int64_t tokens);

// Sees the inputs of the linears of a decoder's blocks while it runs: x is [tokens, features], in the dtype and on the device that
// runs, without padding; of an expert, [tokens sent to it, features]. What the head reads is not shown.
using InputObserver = std::function<void(int64_t block, InputId input, const at::Tensor& x)>;

// Who watches a forward pass. Costs nothing without an observer.
struct Observation {
  const InputObserver* observer = nullptr;
  // bool [batch, tokens], on any device: the tokens that are shown. Undefined: those of the attention mask, else all. Needed where
  // padding on the right is run without a mask, as causal attention allows.
  at::Tensor shown;
};

class Decoder {
 public:
  // Reads config.json (and the ids of generation_config.json), loads all weights. Linears are packed where the checkpoint's are;
  // other weights are converted to options.dtype, but for a token table and head that are stored in 16 bits (embedding.h). Errors:
  // those of Checkpoint::load and parse_decoder_config; unsupported for a quantization_config other than AutoAWQ's 4-bit GEMM and
  // compressed-tensors' pack-quantized, for a dtype that is not float32, bfloat16 or float16, and for 8-bit activations where no
  // linear is quantized; invalid argument for other bits than 8 and 16.
  static Decoder load(const Checkpoint& checkpoint, const DecoderOptions& options);

  // An external model with the same interface. Of `config`, vocab_size, model_type, max_position_embeddings and the special ids are
  // used. Observers and bits other than 16 are refused: unsupported.
  static Decoder of(ExternalModel model, DecoderConfig config, const DecoderOptions& options);

  const DecoderConfig& config() const { return config_; }
  // With the bits that it runs with.
  const DecoderOptions& options() const { return options_; }

  KvCache make_cache(int64_t batch, int64_t capacity) const;
  // Bytes of one token of one row in a cache.
  uint64_t cache_bytes_per_token() const;

  // ids: int64 [batch, tokens] -> final hidden states after the last norm, [batch, tokens, hidden_size].
  // `attention_mask`: bool [batch, past + tokens], true = a real token; undefined = all real. Left or right padding both work:
  // positions count real tokens only. With `cache`, appends to it. ids and the mask may be on any device. Errors: invalid argument
  // for shapes that do not fit, ids outside the vocabulary, a cache that is full; an observer on a mixture of experts when not all
  // tokens are shown (which tokens an expert reads is not told: run rows of one length).
  at::Tensor hidden_states(const at::Tensor& ids, const at::Tensor& attention_mask = {}, KvCache* cache = nullptr,
                           const Observation& observation = {}) const;
  // Of rows of different lengths, without padding: [tokens of all rows, or those wanted, hidden_size]. See ragged_batch.h for what
  // the rows may be. Errors: invalid argument for ids outside the vocabulary and rows that do not fit; unsupported where
  // runs_ragged() says no.
  at::Tensor hidden_states(const RaggedBatch& batch) const;
  // Whether the above can run rows of up to `longest` tokens: not an external model, linear attention (its state is a row's own),
  // or rotary angles that change with a row's length.
  bool runs_ragged(int64_t longest) const;
  // Whether what a row of a RaggedBatch gives depends on nothing else in the batch, to the bit: on the CPU, in float32, and where
  // experts, which read few rows of a batch, have float32 weights.
  bool rows_are_independent() const;
  // logits of rows [n, hidden_size] whose values do not depend on how many there are, as those of hidden_states(RaggedBatch) do
  // not.
  at::Tensor row_logits(const at::Tensor& hidden) const;
  // hidden: [..., hidden_size] -> logits float32 [..., vocab_size]. Ask only for the positions you need: logits are large.
  at::Tensor logits(const at::Tensor& hidden) const;

  // The parts of hidden_states, for measurements that begin in the middle or exchange blocks of two models: rows of one length,
  // without padding or cache, unchecked. Not of an external model.
  // ids: int64 [batch, tokens] -> the first block's input, [batch, tokens, hidden_size].
  at::Tensor embedded(const at::Tensor& ids) const;
  // The input of a block -> its output, the same shape. `weights` take the place of its own where they are given.
  at::Tensor run_block(int64_t block, const at::Tensor& hidden, const BlockWeights* weights = nullptr) const;
  // The last block's output -> what logits() reads.
  at::Tensor finished(const at::Tensor& hidden) const;
  bool is_external() const { return static_cast<bool>(external_.logits); }
  const BlockWeights& block_weights(int64_t block) const { return blocks_.at(static_cast<size_t>(block)); }
  const EmbeddingWeights& embedding() const { return embedding_; }
  const Linear& head() const { return lm_head_; }

  // Why single tokens go through the blocks in the general way, not as TokenStep has it; empty where they do not.
  const std::string& why_no_token_step() const { return why_no_step_; }

  uint64_t weight_bytes() const;  // in memory: packed weights as they are, a tied head once
  uint64_t lookup_bytes() const;  // of them, the token table that is not the head too: a token reads one row of it
  bool is_quantized() const;      // whether any linear is packed

 private:
  bool round_activations();  // of the quantized linears; returns whether there are any
  at::Tensor external_logits(const at::Tensor& ids, const at::Tensor& attention_mask, KvCache* cache,
                             const Observation& observation) const;

  DecoderConfig config_;
  DecoderOptions options_;
  ExternalModel external_;  // without a function: none
  EmbeddingWeights embedding_;
  Norm final_norm_;
  Linear lm_head_;  // shares the embedding when tied
  std::vector<BlockWeights> blocks_;
  std::vector<KvScheme> kv_;               // of each block
  std::shared_ptr<const TokenStep> step_;  // nullptr where there is none
  std::string why_no_step_;
};

}  // namespace salient::models

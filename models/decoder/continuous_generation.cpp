#include "models/decoder/continuous_generation.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <optional>

#include "models/decoder/generated_row.h"

namespace salient::models {
namespace {

// A row of the cache.
struct Slot {
  std::optional<size_t> prompt;  // that runs in it
  std::vector<TokenId> kept;     // tokens whose keys and values it holds
  TokenId next = 0;              // behind the prompt: the token to read
};

// Whole blocks of queries, so that a prompt's rest is read as it would have been without them.
size_t whole_blocks(size_t tokens) { return tokens / static_cast<size_t>(kQueryBlock) * static_cast<size_t>(kQueryBlock); }

size_t shared_blocks(const std::vector<TokenId>& prompt, const std::vector<TokenId>& other) {
  const size_t length = std::min(prompt.size() - 1, other.size());
  const auto [mine, its] = std::mismatch(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(length), other.begin());
  return whole_blocks(static_cast<size_t>(mine - prompt.begin()));
}

class Generator {
 public:
  Generator(const Decoder& decoder, const std::vector<std::vector<TokenId>>& prompts, const GenerationOptions& options,
            const ContinuousOptions& continuous)
      : decoder_(decoder), prompts_(prompts), continuous_(continuous) {
    const auto room = static_cast<size_t>(decoder.config().max_position_embeddings);
    check_generation(options, prompts, room);
    size_t longest = 0;
    for (size_t i = 0; i < prompts.size(); ++i) {
      rows_.emplace_back(options, i, prompts[i].size(), room);
      longest = std::max(longest, prompts[i].size());
    }
    const auto capacity = static_cast<int64_t>(std::min(room, longest + static_cast<size_t>(options.max_new_tokens)));
    const int64_t row_bytes = std::max<int64_t>(1, capacity * static_cast<int64_t>(decoder.cache_bytes_per_token()));
    const int64_t rows = std::clamp<int64_t>(continuous.cache_bytes / row_bytes, 1,
                                             std::min<int64_t>(continuous.max_rows, static_cast<int64_t>(prompts.size())));
    slots_.resize(static_cast<size_t>(rows));
    cache_ = decoder.make_cache(rows, capacity);
  }

  ContinuousResult run() {
    while (true) {
      start_prompts();
      if (!step()) break;
    }
    for (GeneratedRow& row : rows_) result_.rows.push_back(row.take());
    return std::move(result_);
  }

 private:
  const std::vector<TokenId>& prompt_of(const Slot& slot) const { return prompts_[*slot.prompt]; }
  bool reads_prompt(const Slot& slot) const { return slot.kept.size() < prompt_of(slot).size(); }

  // Gives free slots to the next prompts. One that shares more with a prompt that is still being read than with what is there waits
  // for that.
  void start_prompts() {
    for (; next_ < prompts_.size(); ++next_) {
      const std::vector<TokenId>& prompt = prompts_[next_];
      size_t free = slots_.size();
      size_t donor = slots_.size();
      size_t shared = 0;
      size_t promised = 0;
      for (size_t i = 0; i < slots_.size(); ++i) {
        const Slot& slot = slots_[i];
        const size_t here = shared_blocks(prompt, slot.kept);
        if (slot.prompt) promised = std::max(promised, shared_blocks(prompt, prompt_of(slot)));
        if (here > shared || (here == shared && here > 0 && !slot.prompt)) {
          shared = here;
          donor = i;
        }
        if (!slot.prompt && (free == slots_.size() || donor == i)) free = i;
      }
      if (free == slots_.size() || promised > shared) return;
      if (donor != slots_.size() && !slots_[donor].prompt) free = donor;
      Slot& slot = slots_[free];
      if (shared > 0 && donor != free)
        copy_slot(cache_, static_cast<int64_t>(donor), static_cast<int64_t>(free), static_cast<int64_t>(shared));
      slot.kept.assign(prompt.begin(), prompt.begin() + static_cast<std::ptrdiff_t>(shared));
      slot.prompt = next_;
      result_.shared_tokens += static_cast<int64_t>(shared);
    }
  }

  // Tokens that a slot reads in the next pass: one that was generated, or as much of its prompt as `budget` allows.
  std::vector<TokenId> next_tokens(const Slot& slot, int64_t& budget) const {
    if (!reads_prompt(slot)) return {slot.next};
    const std::vector<TokenId>& prompt = prompt_of(slot);
    size_t end = std::min(prompt.size(), slot.kept.size() + static_cast<size_t>(std::max<int64_t>(0, budget)));
    if (end < prompt.size()) end = std::max(whole_blocks(end), slot.kept.size());
    budget -= static_cast<int64_t>(end - slot.kept.size());
    return {prompt.begin() + static_cast<std::ptrdiff_t>(slot.kept.size()), prompt.begin() + static_cast<std::ptrdiff_t>(end)};
  }

  // One forward pass over all slots. False: nothing runs any more.
  bool step() {
    RaggedBatch batch;
    batch.cache = &cache_;
    std::vector<int64_t> ids;
    std::vector<int64_t> positions;
    std::vector<size_t> asking;  // slots whose next token comes out of this pass
    std::vector<int64_t> last;   // their last token in the batch
    int64_t budget = std::max(continuous_.prompt_tokens, kQueryBlock);
    for (size_t i = 0; i < slots_.size(); ++i) {
      Slot& slot = slots_[i];
      if (!slot.prompt) continue;
      const bool prompt = reads_prompt(slot);
      const std::vector<TokenId> tokens = next_tokens(slot, budget);
      if (tokens.empty()) continue;
      batch.rows.push_back(
          {static_cast<int64_t>(tokens.size()), static_cast<int64_t>(i), static_cast<int64_t>(slot.kept.size()), {}});
      for (const TokenId id : tokens) {
        positions.push_back(static_cast<int64_t>(slot.kept.size()));
        ids.push_back(id);
        slot.kept.push_back(id);
      }
      if (prompt) result_.prompt_tokens += static_cast<int64_t>(tokens.size());
      if (reads_prompt(slot)) continue;
      asking.push_back(i);
      last.push_back(static_cast<int64_t>(ids.size()) - 1);
    }
    if (ids.empty()) return false;
    batch.ids = at::tensor(ids, at::kLong);
    batch.positions = at::tensor(positions, at::kLong);
    if (!asking.empty()) batch.wanted = at::tensor(last, at::kLong);
    const at::Tensor hidden = decoder_.hidden_states(batch);
    ++result_.steps;
    if (!asking.empty()) take_tokens(asking, decoder_.row_logits(hidden));
    return true;
  }

  // logits: [asking.size(), vocab_size]
  void take_tokens(const std::vector<size_t>& asking, const at::Tensor& device_logits) {
    const at::Tensor logits = device_logits.cpu().contiguous();
    const at::Tensor likeliest = logits.argmax(-1);  // the first of equals
    const int64_t vocab_size = logits.size(1);
    std::vector<size_t> ended;
    std::vector<GenerationResult> results;
    for (size_t i = 0; i < asking.size(); ++i) {
      Slot& slot = slots_[asking[i]];
      const size_t prompt = *slot.prompt;
      const auto row = static_cast<int64_t>(i);
      const std::span values(logits.const_data_ptr<float>() + row * vocab_size, static_cast<size_t>(vocab_size));
      if (rows_[prompt].advance(values, static_cast<TokenId>(likeliest.const_data_ptr<int64_t>()[row]))) {
        slot.next = rows_[prompt].result().ids.back();
        continue;
      }
      slot.prompt.reset();
      ended.push_back(prompt);
      results.push_back(rows_[prompt].result());
    }
    if (!ended.empty() && continuous_.on_results) continuous_.on_results(ended, results);
  }

  const Decoder& decoder_;
  const std::vector<std::vector<TokenId>>& prompts_;
  const ContinuousOptions& continuous_;
  std::vector<GeneratedRow> rows_;
  std::vector<Slot> slots_;
  KvCache cache_;
  size_t next_ = 0;  // prompt to start
  ContinuousResult result_;
};

}  // namespace

ContinuousResult generate_continuously(const Decoder& decoder, const std::vector<std::vector<TokenId>>& prompts,
                                       const GenerationOptions& options, const ContinuousOptions& continuous) {
  const at::NoGradGuard no_grad;
  if (prompts.empty()) {
    check_generation(options, prompts, 0);
    return {};
  }
  return Generator(decoder, prompts, options, continuous).run();
}

}  // namespace salient::models

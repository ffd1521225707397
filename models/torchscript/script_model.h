// A user's own scripted or traced module, or one that Salient exported, as a language model: token ids in, logits out.
//
// What a file must have: `forward(input_ids: int64 [batch, length])`, which gives logits [batch, length, vocab], or a tuple or list
// whose first element they are, or a dictionary with them under "logits" (what transformers' models give). A second argument
// `attention_mask` without a default is given ones. All tokens count as real, so rows of different lengths are padded on the right.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace salient::models {

class ScriptModel {
 public:
  // `path`: the file, or a folder with exactly one *.pt, *.pth or *.ts file that is TorchScript. Runs one token to learn the
  // vocabulary. Errors: not found; corruption for a file that torch.jit.load refuses; unsupported for a forward of another shape,
  // custom operators that are not there included.
  static ScriptModel load(const std::filesystem::path& path, at::Device device = at::kCPU);

  const std::filesystem::path& path() const { return path_; }
  at::Device device() const { return device_; }
  int64_t vocab_size() const { return vocab_size_; }
  uint64_t weight_bytes() const;  // of parameters and buffers, shared ones once
  // The dtype of most of its weights' bytes that are floating point; float32 where there are none.
  at::ScalarType dtype() const;
  // Files that were saved inside ("config.json", "salient.json"), by name.
  const std::map<std::string, std::string>& extra_files() const { return extra_files_; }

  // ids: int64 [batch, tokens], on any device -> float32 [batch, tokens, vocab_size]. Errors: invalid argument for ids outside the
  // vocabulary; check failed where the module fails or gives another shape, with its text.
  //
  // attention_mask: bool [batch, tokens], true = a real token; undefined = all real. The module never sees it: the real tokens of
  // each row are moved to its beginning, where those behind them do not matter to a causal model, and their logits back. Those of
  // padding are 0.
  at::Tensor logits(const at::Tensor& ids, const at::Tensor& attention_mask = {}) const;

  // Whether it has make_cache and step as models/torchscript/decoder_node.h describes them.
  bool has_step() const { return has_step_; }
  std::vector<at::Tensor> make_cache(int64_t batch, int64_t capacity) const;
  // -> float32 [batch, vocab_size] after the last id; `cache` is written to.
  at::Tensor step(const at::Tensor& ids, const std::vector<at::Tensor>& cache, int64_t position) const;

 private:
  struct Module;
  std::shared_ptr<Module> module_;
  std::filesystem::path path_;
  at::Device device_ = at::kCPU;
  int64_t vocab_size_ = 0;
  bool wants_mask_ = false;
  bool has_step_ = false;
  std::map<std::string, std::string> extra_files_;

  at::Tensor run(const at::Tensor& ids) const;
  at::Tensor run_padded(const at::Tensor& ids, const at::Tensor& real) const;
};

// The one TorchScript file of a folder, `path` itself where it is a file. Errors: not found, naming what is there.
std::filesystem::path find_torchscript_file(const std::filesystem::path& path);

}  // namespace salient::models

// A model as one GGUF file: what is in it, and a place for each tensor of the checkpoint as it comes.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "models/gguf/gguf_mixture.h"
#include "models/gguf/gguf_tensors.h"
#include "models/io/checkpoint.h"
#include "models/io/checkpoint_writer.h"
#include "pipeline/awq_linear.h"

namespace salient::pipeline {

struct GgufContents {
  models::GgufPlan plan;
  std::vector<quant::GgmlType> types;      // of the plan's tensors
  std::vector<models::GgufPair> metadata;  // the model's and the tokenizer's
  std::vector<std::string> notes;          // what llama.cpp does otherwise; to be shown to the user

  models::GgufHeader header() const;
};

// `name`: general.name. Errors: unsupported: an architecture or option that llama.cpp has not (models/gguf/gguf_graphs.h), a
// tokenizer that GGUF cannot hold.
GgufContents plan_gguf_contents(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                const models::GgufFormat& format, const std::string& name,
                                const models::GgufMixtureOptions& mixture = {});

// The file that a quantization writes: model-Q4_K_M.gguf. Tensors are put under their names in the checkpoint: rows of blocks of a
// linear that was quantized, anything else as floats, which get their type here (by ggml's quantizer without importance: embedding
// and head).
class GgufOutput {
 public:
  // `options`: with ggml_types. Linears that stay in float have the type of the source's dtype. Errors: as above; unsupported where
  // some experts of a layer stay in float and others do not, and for tensors of the model that the file has no place for.
  GgufOutput(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const AwqOptions& options);

  const std::vector<std::string>& notes() const { return contents_.notes; }
  models::ShardPlan plan() const;
  // Of floats by their names in the checkpoint: what their type holds exactly, float32 where that is in blocks.
  StoredDtype stored() const;
  // `writer`: of plan(); must outlive the sink, as this must.
  TensorSink sink(models::CheckpointWriter& writer) const;
  // The type of the head's tensor, where that is in blocks.
  std::optional<quant::GgmlType> head_type() const;
  // Where the head is in blocks: its tensor in the checkpoint is put last, by put_head.
  bool is_head(const std::string& name) const { return head_type().has_value() && name == head_source_; }
  // `blocks`: of the head. `values`: the tensor of the checkpoint, for the embedding where the file has it apart from the head.
  void put_head(models::CheckpointWriter& writer, const at::Tensor& blocks, const at::Tensor& values) const;
  // What follows from config.json alone.
  void put_constants(models::CheckpointWriter& writer) const;

 private:
  struct Place {
    size_t tensor;  // of the plan
    int64_t part;   // of the first dimension of stacked experts, else -1
  };
  void keep_ignored_in_float(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const AwqOptions& options);
  void check_places(const models::Checkpoint& checkpoint, const models::DecoderConfig& config, const AwqOptions& options) const;
  at::Tensor stored_form(size_t tensor, const at::Tensor& given) const;

  std::string file_;
  std::string head_source_;  // the tensor of the checkpoint that the head is made of
  size_t head_ = 0;          // its tensor in the plan
  GgufContents contents_;
  std::map<std::string, std::vector<Place>> places_;  // by name in the checkpoint; a tied head has two
};

}  // namespace salient::pipeline

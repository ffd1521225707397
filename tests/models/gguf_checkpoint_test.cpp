// GGUF files as models: the logits that transformers computes from the same files (scripts/goldens/gguf_models.py), and the demo
// model's tokenizer and chat template out of one.
#include "models/gguf/gguf_checkpoint.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "models/decoder/decoder.h"
#include "models/gguf/gguf_tokenizer.h"
#include "models/io/checkpoint.h"
#include "models/io/detect.h"
#include "models/io/gguf_writer.h"
#include "models/io/model_folder.h"
#include "models/text/chat_template.h"
#include "models/text/tokenizer.h"
#include "support/golden_checkpoint.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

const fs::path kDemo = fs::path(SALIENT_SOURCE_DIR) / "models/demo";

const Json& goldens() {
  static const Json file = read_json_file(fs::path(SALIENT_SOURCE_DIR) / "tests/data/gguf/models.json");
  return file;
}

// Random codes between the scales that the golden file names.
at::Tensor golden_blocks(const std::string& name, const quant::GgmlTypeInfo& type, const std::vector<int64_t>& shape) {
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < shape.size(); ++d) rows *= shape[d];
  const at::Tensor blocks = at::empty({rows, type.row_bytes(shape.back())}, at::kByte);
  auto* bytes = blocks.data_ptr<uint8_t>();
  for (int64_t i = 0; i < blocks.numel(); ++i)
    bytes[i] = static_cast<uint8_t>(test::splitmix64(test::fnv1a64(name) + static_cast<uint64_t>(i)) >> 40);
  for (const Json& scale : goldens().at("scales").at(std::string(type.name))) {
    const c10::Half half(scale.at(1).get<float>());
    for (int64_t at = scale.at(0).get<int64_t>(); at < blocks.numel(); at += type.block_bytes)
      std::memcpy(bytes + at, &half, sizeof(half));
  }
  return blocks;
}

at::Tensor stored(const std::string& name, const quant::GgmlTypeInfo& type, const std::vector<int64_t>& shape) {
  if (type.block_elements > 1) return golden_blocks(name, type, shape);
  const bool vector = shape.size() == 1;
  const at::Tensor values = test::golden_tensor(name, shape, vector ? 1.0 : 0.0, vector ? 0.3 : 0.2);
  return type.type == quant::GgmlType::kF32 ? values : quant::quantize_ggml(values.view({-1, shape.back()}), type.type);
}

void write_case(const Json& golden, const fs::path& path, const std::vector<GgufPair>& more = {}) {
  std::vector<GgufPair> pairs = {{"general.architecture", golden.at("architecture").get<std::string>()}};
  for (const Json& pair : golden.at("metadata")) {
    const bool number = pair.at(1) == "f32";
    pairs.push_back({pair.at(0), number ? GgufValue(pair.at(2).get<float>()) : GgufValue(pair.at(2).get<uint32_t>())});
  }
  pairs.insert(pairs.end(), more.begin(), more.end());
  std::vector<GgufTensor> tensors;
  for (const Json& t : golden.at("tensors"))
    tensors.push_back({t.at(0), quant::find_ggml_type(t.at(1).get<std::string>())->type, t.at(2).get<std::vector<int64_t>>(), 0});
  GgufWriter writer(path, std::move(pairs), tensors);
  for (const GgufTensor& tensor : tensors)
    writer.append(tensor.name, stored(tensor.name, quant::ggml_type_info(tensor.type), tensor.shape));
  writer.finish();
}

const Json& golden_case(const std::string& name) {
  for (const Json& golden : goldens().at("cases")) {
    if (golden.at("name") == name) return golden;
  }
  throw std::runtime_error("no case " + name);
}

TEST(GgufCheckpoint, LogitsAreThoseOfTransformersOnTheSameFile) {
  for (const Json& golden : goldens().at("cases")) {
    SCOPED_TRACE(golden.at("name").get<std::string>());
    const test::TemporaryFolder folder;
    write_case(golden, folder.path() / "m.gguf");
    const Decoder decoder = Decoder::load(Checkpoint(folder.path() / "m.gguf"), {at::kFloat, at::kCPU});
    const at::Tensor ids = at::tensor(golden.at("ids").get<std::vector<int64_t>>()).unsqueeze(0);
    const at::Tensor logits = decoder.logits(decoder.hidden_states(ids)).squeeze(0);
    const auto& rows = golden.at("logits");
    ASSERT_EQ(logits.size(0), static_cast<int64_t>(rows.size()));
    for (size_t row = 0; row < rows.size(); ++row) {
      const at::Tensor expected = at::tensor(rows.at(row).get<std::vector<float>>());
      EXPECT_TRUE(at::allclose(logits[static_cast<int64_t>(row)], expected, 1e-4, 1e-4)) << row;
    }
  }
}

TEST(GgufCheckpoint, SaysWhatIsStored) {
  const test::TemporaryFolder folder;
  write_case(golden_case("llama_k"), folder.path() / "k.gguf");
  const Checkpoint blocks(folder.path() / "k.gguf");
  const Json& quantization = blocks.config().at("quantization_config");
  EXPECT_EQ(quantization.at("quant_method"), "gguf");
  EXPECT_EQ(quantization.at("tensor_types").at("Q4_K"), 4);
  EXPECT_EQ(quantization.at("tensor_types").at("F32"), 5);
  const TensorInfo& q = blocks.info("model.layers.0.self_attn.q_proj.weight");
  EXPECT_EQ(q.dtype, at::kFloat);
  EXPECT_EQ(q.bytes(), 256u * 144);
  EXPECT_EQ(blocks.file_of("lm_head.weight"), folder.path() / "k.gguf");
  uint64_t bytes = 0;
  for (const GgufTensor& tensor : blocks.gguf()->header().tensors) bytes += gguf_data_bytes(tensor);
  EXPECT_EQ(blocks.total_bytes(), bytes);
  EXPECT_DOUBLE_EQ(quantization.at("bits_per_weight").get<double>(),
                   8.0 * static_cast<double>(bytes) / static_cast<double>(blocks.gguf()->summary().parameters));
  EXPECT_THAT(test::message_of([&] { blocks.info("model.layers.0.self_attn.q_proj.weigth"); }, ErrorKind::kNotFound),
              HasSubstr("q_proj.weight"));

  write_case(golden_case("qwen3_tied_floats"), folder.path() / "f.gguf");
  const Checkpoint floats(folder.path() / "f.gguf");
  EXPECT_FALSE(floats.config().contains("quantization_config"));
  EXPECT_EQ(floats.view("model.layers.0.self_attn.k_proj.weight").scalar_type(), at::kBFloat16);
  const at::Tensor embedding = floats.load("model.embed_tokens.weight", {32, 64}, at::kFloat);
  EXPECT_TRUE(at::equal(embedding, test::golden_tensor("token_embd.weight", {32, 64}, 0.0, 0.2).to(at::kHalf).to(at::kFloat)));

  write_case(golden_case("qwen3_moe"), folder.path() / "e.gguf");
  const Checkpoint experts(folder.path() / "e.gguf");
  const TensorInfo& second = experts.info("model.layers.0.mlp.experts.1.up_proj.weight");
  const TensorInfo& third = experts.info("model.layers.0.mlp.experts.2.up_proj.weight");
  EXPECT_THAT(second.shape, ::testing::ElementsAre(32, 64));
  EXPECT_EQ(second.bytes(), 32u * 2 * 24);
  EXPECT_EQ(third.begin, second.end);
}

TEST(GgufCheckpoint, AFolderWithOneFileIsThatModel) {
  const test::TemporaryFolder folder;
  const fs::path first = folder.path() / "a.gguf";
  EXPECT_FALSE(find_gguf_model(folder.path()));
  write_case(golden_case("qwen3_tied_floats"), first);
  EXPECT_EQ(find_gguf_model(folder.path()), first);
  EXPECT_EQ(Checkpoint(folder.path()).folder(), first);
  fs::copy(first, folder.path() / "b.gguf");
  const std::string message = test::message_of([&] { Checkpoint both(folder.path()); }, ErrorKind::kInvalidArgument);
  EXPECT_THAT(message, HasSubstr("a.gguf, b.gguf"));
  EXPECT_EQ(find_gguf_model(first), first);
  fs::rename(folder.path() / "b.gguf", folder.path() / "no_extension");
  EXPECT_EQ(find_gguf_model(folder.path() / "no_extension"), folder.path() / "no_extension");
  write_file(folder.path() / "model.safetensors", "");
  EXPECT_FALSE(find_gguf_model(folder.path())) << "safetensors files go first";
}

TEST(GgufCheckpoint, WhatCannotBeReadIsNamed) {
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "m.gguf";
  const Json& golden = golden_case("qwen3_tied_floats");
  const auto message = [&](ErrorKind kind) {
    const std::string text = test::message_of([&] { Checkpoint model(path); }, kind);
    EXPECT_THAT(text, HasSubstr(path.string()));
    return text;
  };
  write_case(golden, path, {{"general.type", std::string("imatrix")}});
  EXPECT_THAT(message(ErrorKind::kUnsupported), HasSubstr("importance matrix"));
  write_case(golden, path, {{"split.count", uint16_t{3}}});
  EXPECT_THAT(message(ErrorKind::kUnsupported), HasSubstr("one of 3 parts"));
  write_case(golden, path);
  fs::resize_file(path, fs::file_size(path) - 5000);
  EXPECT_THAT(message(ErrorKind::kCorruption), HasSubstr("it is truncated"));
  write_file(path, "GGML and more than eight bytes");
  EXPECT_THAT(message(ErrorKind::kCorruption), HasSubstr("GGUF"));

  Json other = golden;
  other["tensors"][3][1] = "IQ4_NL";  // known by its size only
  std::vector<GgufTensor> tensors;
  for (const Json& t : other.at("tensors"))
    tensors.push_back({t.at(0), quant::find_ggml_type(t.at(1).get<std::string>())->type, t.at(2).get<std::vector<int64_t>>(), 0});
  GgufWriter writer(path, {{"general.architecture", std::string("qwen3")}}, tensors);
  for (const GgufTensor& tensor : tensors) {
    const quant::GgmlTypeInfo& type = quant::ggml_type_info(tensor.type);
    const int64_t rows = tensor.shape.size() > 1 ? tensor.shape[0] : 1;
    const bool floats = tensor.type == quant::GgmlType::kF32;
    writer.append(tensor.name, floats ? at::empty(tensor.shape).zero_()
                                      : at::empty({rows, type.row_bytes(tensor.shape.back())}, at::kByte).zero_());
  }
  writer.finish();
  EXPECT_THAT(message(ErrorKind::kUnsupported),
              ::testing::AllOf(HasSubstr("blk.0.attn_q.weight"), HasSubstr("IQ4_NL"), HasSubstr("Q4_K")));
  EXPECT_THAT(test::message_of([&] { resolve_model_folder(path.string()); }, ErrorKind::kInvalidArgument),
              HasSubstr("is a GGUF file"));
}

// Hostile numbers in the metadata: none may divide, or ask for memory that the file does not pay for.
TEST(GgufCheckpoint, CountsThatCannotBeAreRefused) {
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "m.gguf";
  const auto message = [&](const Json& golden, const std::string& key, uint32_t value) {
    Json changed = golden;
    const std::string whole = golden.at("architecture").get<std::string>() + "." + key;
    for (Json& pair : changed["metadata"]) {
      if (pair.at(0) == whole) pair[2] = value;
    }
    write_case(changed, path);
    return test::message_of([&] { Checkpoint model(path); }, ErrorKind::kCorruption);
  };
  EXPECT_THAT(message(golden_case("qwen3_tied_floats"), "attention.head_count", 0), HasSubstr("attention.head_count': found 0"));
  EXPECT_THAT(message(golden_case("qwen3_tied_floats"), "block_count", 90'000), HasSubstr("block_count': found 90000"));
  EXPECT_THAT(message(golden_case("qwen3_moe"), "expert_count", 2'147'483'647), HasSubstr("expert_count': found 2147483647"));
}

TEST(GgufCheckpoint, DetectionTellsTypesTokenizerAndImportance) {
  const test::TemporaryFolder folder;
  const fs::path path = folder.path() / "m.gguf";
  write_case(golden_case("llama_k"), path,
             {{"general.file_type", uint32_t{15}},
              {"quantize.imatrix.file", std::string("words.imatrix")},
              {"quantize.imatrix.chunks_count", int32_t{7}}});
  const DetectedModel model = detect_model(path);
  EXPECT_EQ(model.format, "gguf");
  EXPECT_EQ(model.quantized_linears, 15);  // with the head
  EXPECT_EQ(model.unquantized_linears, 0);
  EXPECT_TRUE(model.contradictions.empty());
  std::string evidence;
  for (const Evidence& entry : model.evidence) evidence += entry.source + ": " + entry.finding + "\n";
  EXPECT_THAT(evidence, HasSubstr("architecture: llama\n"));
  EXPECT_THAT(evidence, HasSubstr("weights: Q4_K_M: 5 F32, 4 Q4_K, 3 Q4_0, 3 Q6_K, 3 Q8_0, 2 Q5_1, 1 Q5_K; "));
  EXPECT_THAT(evidence, HasSubstr("bits per weight\n"));
  EXPECT_THAT(evidence, HasSubstr("tokenizer: none\n"));
  EXPECT_THAT(evidence, HasSubstr("importance matrix: words.imatrix, 7 chunks\n"));
  fs::resize_file(path, fs::file_size(path) - 5000);
  EXPECT_THAT(detect_model(path).contradictions, ::testing::ElementsAre(HasSubstr("it is truncated")));
  write_file(path, "no GGUF file");
  EXPECT_THAT(test::message_of([&] { detect_model(path); }, ErrorKind::kCorruption), HasSubstr("does not begin with \"GGUF\""));
}

TEST(GgufCheckpoint, TokenizerAndTemplateAreTheDemoModels) {
  const test::TemporaryFolder folder;
  const Tokenizer tokenizer = Tokenizer::from_folder(kDemo);
  const ChatTemplate chat = ChatTemplate::from_folder(kDemo);
  const OrderedJson messages = {{{"role", "system"}, {"content", "Be short."}}, {{"role", "user"}, {"content", "2 + 2?"}}};
  const std::vector<GgufPair> all = gguf_tokenizer(kDemo, load_decoder_config(kDemo)).pairs;
  for (const bool with_json : {true, false}) {
    std::vector<GgufPair> pairs = all;
    if (!with_json) std::erase_if(pairs, [](const GgufPair& pair) { return pair.key == "tokenizer.huggingface.json"; });
    const fs::path path = folder.path() / "m.gguf";
    write_case(golden_case("qwen3_tied_floats"), path, pairs);
    for (const fs::path& model : {path, folder.path()}) {
      const Tokenizer inside = Tokenizer::from_folder(model);
      for (const std::string text :
           {"There are three  red apples.\n\n12345 + 67 = ?", "<|im_start|>user\nÜber 🙂<|im_end|>", " \t'tis we'll  x_1"}) {
        EXPECT_EQ(inside.encode(text, true), tokenizer.encode(text, true)) << text;
        EXPECT_EQ(inside.decode(inside.encode(text, false), false), text);
      }
      ASSERT_TRUE(ChatTemplate::exists_in(model));
      const ChatTemplate found = ChatTemplate::from_folder(model);
      EXPECT_EQ(found.source(), chat.source());
      EXPECT_EQ(found.render(messages, {.add_generation_prompt = true}), chat.render(messages, {.add_generation_prompt = true}));
    }
  }
  write_case(golden_case("qwen3_tied_floats"), folder.path() / "m.gguf",
             {{"tokenizer.chat_template", std::string("plain")}, {"tokenizer.chat_template.tool_use", std::string("tools")}});
  EXPECT_EQ(ChatTemplate::from_folder(folder.path(), "tool_use").source(), "tools");
  EXPECT_EQ(ChatTemplate::from_folder(folder.path()).source(), "plain");
  EXPECT_THAT(test::message_of([&] { ChatTemplate::from_folder(folder.path(), "rag"); }, ErrorKind::kNotFound), HasSubstr("'rag'"));
  EXPECT_THAT(test::message_of([&] { Tokenizer::from_folder(folder.path()); }, ErrorKind::kNotFound), HasSubstr("no tokenizer"));
}

}  // namespace
}  // namespace salient::models

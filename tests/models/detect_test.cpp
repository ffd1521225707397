#include "models/io/detect.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <limits>

#include "common/error.h"
#include "common/file.h"
#include "models/io/safetensors.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kAwqConfig =
    R"({"hidden_size":256,"quantization_config":{"quant_method":"awq","zero_point":true,"group_size":128,"bits":4,"version":"gemm","modules_to_not_convert":null}})";

class Detect : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("salient_detect_" + std::to_string(::getpid()));
    fs::remove_all(root_);
    use("model");
  }
  void TearDown() override { fs::remove_all(root_); }

  void use(const std::string& name) {
    folder_ = root_ / name;
    tensors_.clear();
    fs::create_directories(folder_);
    add("model.embed_tokens.weight", at::kHalf, {64, 256});
    add("model.norm.weight", at::kHalf, {256});
    add("lm_head.weight", at::kHalf, {64, 256});
  }
  void add(const std::string& name, at::ScalarType dtype, const std::vector<int64_t>& shape) {
    tensors_.push_back({name, at::zeros(shape, dtype)});
  }
  void add_layer(const std::string& name, const std::vector<std::tuple<std::string, at::ScalarType, std::vector<int64_t>>>& parts) {
    for (const auto& [part, dtype, shape] : parts) add("model.layers.0." + name + "." + part, dtype, shape);
  }
  // The layouts of the document: K = in, N = out, G = group.
  void add_gemm(const std::string& name, int64_t k, int64_t n, int64_t g, int64_t bits = 4) {
    add_layer(name, {{"qweight", at::kInt, {k, n * bits / 32}},
                     {"qzeros", at::kInt, {k / g, n * bits / 32}},
                     {"scales", at::kHalf, {k / g, n}}});
  }
  void write_tensors() { write_safetensors(folder_ / "model.safetensors", tensors_); }
  void config(const std::string& text) { write_file(folder_ / "config.json", text); }
  DetectedModel detect() {
    write_tensors();
    return detect_model(folder_);
  }
  Error error() {
    try {
      const DetectedModel model = detect_model(folder_);
      ADD_FAILURE() << "detected as " << model.format;
    } catch (const Error& error) {
      return error;
    }
    return Error(ErrorKind::kInternal, "");
  }

  fs::path root_;
  fs::path folder_;
  std::vector<NamedTensor> tensors_;
};

std::string spec_text(const DetectedModel& model) { return model.spec ? to_string(*model.spec) : "none"; }

TEST_F(Detect, DemoModelIsFloat) {
  const DetectedModel model = detect_model(fs::path(SALIENT_SOURCE_DIR) / "models/demo");
  EXPECT_EQ(model.format, "float");
  EXPECT_EQ(model.method, "none");
  EXPECT_FALSE(model.spec);
  EXPECT_EQ(model.quantized_linears, 0);
  EXPECT_GT(model.unquantized_linears, 0);
  EXPECT_EQ(model.dtype_bytes.size(), 1u);
  EXPECT_EQ(model.dtype_bytes.at("BF16"), model.parameters * 2);
  EXPECT_EQ(model.disk_bytes, fs::file_size(fs::path(SALIENT_SOURCE_DIR) / "models/demo/model.safetensors"));
  EXPECT_THAT(model.contradictions, IsEmpty());
}

// What is left in float outside of the text model is no half of a mixed quantization.
TEST_F(Detect, LinearsOfAVisionPartAreCountedApart) {
  add_gemm("self_attn.q_proj", 256, 256, 128);
  add("visual.blocks.0.attn.qkv.weight", at::kHalf, {48, 16});
  add("visual.blocks.0.mlp.fc1.weight", at::kHalf, {16, 16});
  config(
      R"({"model_type":"qwen2_vl","hidden_size":256,"vision_config":{},"quantization_config":{"quant_method":"awq","zero_point":true,"group_size":128,)"
      R"("bits":4,"version":"gemm","modules_to_not_convert":["visual"]}})");
  const DetectedModel model = detect();
  EXPECT_EQ(model.format, "awq-gemm");
  EXPECT_EQ(model.quantized_linears, 1);
  EXPECT_EQ(model.unquantized_linears, 1);  // lm_head
  EXPECT_THAT(model.contradictions, IsEmpty());
  EXPECT_TRUE(std::any_of(model.evidence.begin(), model.evidence.end(), [](const Evidence& e) {
    return e.finding.find("1 float ones and 2 in the vision part") != std::string::npos;
  }));
}

TEST_F(Detect, AwqGemm) {
  config(kAwqConfig);
  add_gemm("self_attn.q_proj", 256, 512, 128);
  add_gemm("mlp.down_proj", 768, 256, 128);
  add_layer("mlp", {{"gate.weight", at::kHalf, {8, 256}}});
  const DetectedModel model = detect();
  EXPECT_EQ(model.format, "awq-gemm");
  EXPECT_EQ(model.method, "awq");
  EXPECT_EQ(model.version, "gemm");
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g128 asym head-fp16");
  EXPECT_EQ(model.quantized_linears, 2);
  EXPECT_EQ(model.unquantized_linears, 2);  // lm_head and the router, not the embedding
  EXPECT_EQ(model.parameters, 2u * 64 * 256 + 256 + 256 * 512 + 768 * 256 + 8 * 256);
  EXPECT_EQ(model.dtype_bytes.at("I32"), (256u * 512 + 768 * 256) / 2 + (2 * 512 + 6 * 256) / 2);
  EXPECT_THAT(model.contradictions, IsEmpty());
  ASSERT_EQ(model.evidence.size(), 2u);
  EXPECT_EQ(model.evidence[0].source, "config.json quantization_config");
  EXPECT_EQ(model.evidence[1].source, "tensor names and shapes");
  EXPECT_THAT(model.evidence[1].finding, HasSubstr("awq-gemm, 4 bits, group 128"));
}

TEST_F(Detect, TensorsAloneAreEnough) {
  add_gemm("self_attn.q_proj", 256, 512, 64, 8);
  add_gemm("mlp.down_proj", 768, 256, 64, 8);
  DetectedModel model = detect();
  EXPECT_EQ(model.format, "awq-gemm");
  EXPECT_EQ(model.method, "awq");
  EXPECT_EQ(spec_text(model), "w8 a16 kv16 g64 asym head-fp16");

  use("gemv");
  for (const int64_t k : {256, 4096}) {  // ZW = ceil(ceil((K/64)/8)/2)*2: 2 and 8
    const int64_t zw = k == 256 ? 2 : 8;
    add_layer("k" + std::to_string(k),
              {{"qweight", at::kInt, {64, k / 8}}, {"qzeros", at::kInt, {64, zw}}, {"scales", at::kHalf, {64, 8 * zw}}});
  }
  model = detect();
  EXPECT_EQ(model.format, "awq-gemv");
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g64 asym head-fp16");
  EXPECT_EQ(model.parameters, 2u * 64 * 256 + 256 + 64 * (256 + 4096));

  use("gemv_fast");
  add_layer("fast", {{"qweight", at::kShort, {32, 11008}}, {"qzeros", at::kHalf, {88, 128}}, {"scales", at::kHalf, {88, 128}}});
  model = detect();
  EXPECT_EQ(model.format, "awq-gemv-fast");
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g128 asym head-fp16");

  use("marlin");
  add_layer("m", {{"qweight", at::kInt, {16, 512}}, {"scales", at::kHalf, {2, 256}}});
  model = detect();
  EXPECT_EQ(model.format, "awq-marlin");
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g128 sym head-fp16");

  use("gptq3");
  add_layer("g", {{"qweight", at::kInt, {24, 512}},
                  {"qzeros", at::kInt, {2, 48}},
                  {"scales", at::kHalf, {2, 512}},
                  {"g_idx", at::kInt, {256}}});
  model = detect();
  EXPECT_EQ(model.format, "gptq");
  EXPECT_EQ(model.method, "gptq");
  EXPECT_EQ(spec_text(model), "w3 a16 kv16 g128 asym head-fp16");
}

// AutoAWQ's GEMV layer of 256 x 256 with groups of 32 has the shapes that GPTQ's 2048 x 32 with groups of 8 would have.
TEST_F(Detect, GemvThatLooksLikeGptq) {
  add_layer("l", {{"qweight", at::kInt, {256, 32}}, {"qzeros", at::kInt, {256, 4}}, {"scales", at::kHalf, {256, 32}}});
  const DetectedModel model = detect();
  EXPECT_EQ(model.format, "awq-gemv");
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g32 asym head-fp16");
}

TEST_F(Detect, OneGroupPerChannel) {
  add_gemm("self_attn.q_proj", 256, 512, 256);
  add_gemm("mlp.down_proj", 768, 256, 768);
  DetectedModel model = detect();
  EXPECT_EQ(model.spec->group_size, -1);

  use("same_widths");  // 256 or -1: both are right, the config's word counts
  add_gemm("self_attn.q_proj", 256, 512, 256);
  EXPECT_EQ(detect().spec->group_size, 256);
  config(R"({"quantization_config":{"quant_method":"awq","group_size":-1,"bits":4,"zero_point":true,"version":"gemm"}})");
  model = detect();
  EXPECT_EQ(model.spec->group_size, -1);
  EXPECT_THAT(model.contradictions, IsEmpty());
}

TEST_F(Detect, CompressedTensors) {
  const auto layer = [this](int64_t zeros) {
    add_layer(
        "self_attn.q_proj",
        {{"weight_packed", at::kInt, {512, 32}}, {"weight_scale", at::kBFloat16, {512, 2}}, {"weight_shape", at::kLong, {2}}});
    if (zeros > 0) add_layer("self_attn.q_proj", {{"weight_zero_point", at::kInt, {zeros, 2}}});
  };
  layer(64);  // N * 4 / 32: the zero points tell the bits
  DetectedModel model = detect();
  EXPECT_EQ(model.format, "compressed-tensors");
  EXPECT_EQ(model.method, "unknown");
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g128 asym head-fp16");
  EXPECT_EQ(model.parameters, 2u * 64 * 256 + 256 + 512 * 256);

  use("hostile_width");
  add_layer("self_attn.q_proj",
            {{"weight_packed", at::kInt, {1, 32}}, {"weight_scale", at::kBFloat16, {1, 1}}, {"weight_shape", at::kLong, {2}}});
  tensors_.back().tensor.fill_(std::numeric_limits<int64_t>::max())[0] = 1;
  EXPECT_FALSE(detect().spec);

  use("symmetric");  // without them and without a config the bits are open
  layer(0);
  model = detect();
  EXPECT_EQ(model.format, "compressed-tensors");
  EXPECT_FALSE(model.spec);
  config(R"({"hidden_size":256})");
  EXPECT_EQ(spec_text(detect()), "w4 a16 kv16 g128 sym head-fp16");
  config(R"({"hidden_size":128})");
  EXPECT_EQ(spec_text(detect()), "w8 a16 kv16 g64 sym head-fp16");

  config(
      R"({"hidden_size":256,"quantization_config":{"config_groups":{"group_0":{"input_activations":{"num_bits":8},"targets":["Linear"],
    "weights":{"group_size":128,"num_bits":4,"strategy":"group","symmetric":true,"type":"int"}}},"format":"pack-quantized","ignore":["lm_head"],
    "kv_cache_scheme":{"num_bits":8},"quant_method":"compressed-tensors","version":"0.12.2"}})");
  write_file(folder_ / "recipe.yaml", "default_stage:\n  default_modifiers:\n    AWQModifier:\n");
  model = detect();
  EXPECT_EQ(model.method, "awq");
  EXPECT_EQ(model.version, "pack-quantized 0.12.2");
  EXPECT_EQ(spec_text(model), "w4 a8 kv8 g128 sym head-fp16");
  EXPECT_THAT(model.contradictions, IsEmpty());
}

TEST_F(Detect, OurMetadata) {
  use("Qwen3-Demo-openmath_SFT_NoPeft_AWQ_w4_g128_headfp16_quantized");
  config(kAwqConfig);
  write_file(
      folder_ / "quantization_metadata.json",
      R"({"format":"awq-gemm","method":"AWQ","spec":{"weight_bits":4,"activation_bits":8,"kv_cache_bits":8,"group_size":128,"zero_point":true,"lm_head":"fp16"},"seed":1})");
  add_gemm("self_attn.q_proj", 256, 512, 128);
  const DetectedModel model = detect();
  EXPECT_EQ(spec_text(model), "w4 a8 kv8 g128 asym head-fp16");
  EXPECT_THAT(model.contradictions, IsEmpty());
  std::vector<std::string> sources;
  for (const Evidence& evidence : model.evidence) sources.push_back(evidence.source);
  EXPECT_THAT(sources, ElementsAre("config.json quantization_config", "quantization_metadata.json", "tensor names and shapes",
                                   HasSubstr("folder name")));
}

TEST_F(Detect, RoundToNearestAndSymmetricInAutoAwqsLayout) {
  config(kAwqConfig);
  write_file(folder_ / "quantization_metadata.json",
             R"({"format":"awq-gemm","method":"RTN","spec":{"weight_bits":4,"group_size":128,"zero_point":false}})");
  add_gemm("self_attn.q_proj", 256, 512, 128);
  const DetectedModel model = detect();
  EXPECT_EQ(model.method, "rtn");
  EXPECT_FALSE(model.spec->zero_point);
  EXPECT_THAT(model.contradictions, IsEmpty());
}

TEST_F(Detect, TensorsWinAndBothSidesAreTold) {
  use("some-model_AWQ_w3_g64_headfp16");
  config(R"({"quantization_config":{"quant_method":"awq","zero_point":true,"group_size":64,"bits":4,"version":"gemv"}})");
  add_gemm("self_attn.q_proj", 256, 512, 128);
  const DetectedModel model = detect();
  EXPECT_EQ(model.format, "awq-gemm");
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g128 asym head-fp16");
  const auto said = [](const char* field, const char* strong, const char* source, const char* weak) {
    return AllOf(::testing::StartsWith(std::string(field) + ": tensor names and shapes say " + strong),
                 HasSubstr("qweight I32 [256, 64]"), HasSubstr(source), ::testing::EndsWith(std::string("says ") + weak));
  };
  EXPECT_THAT(model.contradictions,
              ElementsAre(said("format", "awq-gemm", "config.json", "awq-gemv"), said("weight_bits", "4", "folder name", "3"),
                          said("group_size", "128", "config.json", "64"), said("group_size", "128", "folder name", "64")));
}

TEST_F(Detect, MixedLayersAreListed) {
  add_gemm("a", 256, 512, 128);
  add_gemm("b", 256, 512, 128);
  add_gemm("c", 256, 512, 64, 8);
  const DetectedModel model = detect();
  EXPECT_EQ(spec_text(model), "w4 a16 kv16 g128 asym head-fp16");
  EXPECT_THAT(model.evidence.back().finding, HasSubstr("mixed: 2 of awq-gemm 4 bits group 128, 1 of awq-gemm 8 bits group 64"));
}

TEST_F(Detect, LegacyQuantConfig) {
  config(R"({"hidden_size":256})");
  write_file(folder_ / "quant_config.json", R"({"zero_point":true,"q_group_size":128,"w_bit":4,"version":"GEMM"})");
  add_gemm("self_attn.q_proj", 256, 512, 128);
  const DetectedModel model = detect();
  EXPECT_EQ(model.evidence[1].source, "quant_config.json");
  EXPECT_THAT(model.evidence[1].finding, HasSubstr("awq-gemm"));
  EXPECT_EQ(model.version, "GEMM");
  EXPECT_THAT(model.contradictions, IsEmpty());
}

TEST_F(Detect, ClaimedButNotQuantized) {
  config(kAwqConfig);
  DetectedModel model = detect();
  EXPECT_EQ(model.format, "float");
  EXPECT_EQ(model.method, "none");
  EXPECT_THAT(model.contradictions,
              ElementsAre(AllOf(HasSubstr("float"), HasSubstr("config.json quantization_config says awq-gemm"))));

  use("Llama-7B-AWQ");
  model = detect();
  EXPECT_EQ(model.format, "float");
  EXPECT_THAT(model.contradictions, ElementsAre(AllOf(HasSubstr("method"), HasSubstr("Llama-7B-AWQ"))));
}

TEST_F(Detect, NameInTheHuggingFaceCache) {
  use("models--org--Llama-GPTQ/snapshots/c1899de289a04d12100db370d81485cdf75e47ca");
  EXPECT_THAT(detect().contradictions, ElementsAre(HasSubstr("models--org--Llama-GPTQ")));
}

TEST_F(Detect, Shards) {
  config(kAwqConfig);
  add_gemm("self_attn.q_proj", 256, 512, 128);
  // weight and scales of one linear in different shards
  const std::vector<NamedTensor> first(tensors_.begin(), tensors_.begin() + 4), second(tensors_.begin() + 4, tensors_.end());
  write_safetensors(folder_ / "model-00001-of-00002.safetensors", first);
  write_safetensors(folder_ / "model-00002-of-00002.safetensors", second);
  std::string map;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    map += (i == 0 ? "" : ",") + ("\"" + tensors_[i].name) + "\":\"model-0000" + (i < 4 ? "1" : "2") + "-of-00002.safetensors\"";
  }
  write_file(folder_ / "model.safetensors.index.json", R"({"metadata":{},"weight_map":{)" + map + "}}");
  const DetectedModel model = detect_model(folder_);
  EXPECT_EQ(model.format, "awq-gemm");
  EXPECT_EQ(model.disk_bytes, fs::file_size(folder_ / "model-00001-of-00002.safetensors") +
                                  fs::file_size(folder_ / "model-00002-of-00002.safetensors"));
  fs::remove(folder_ / "model-00002-of-00002.safetensors");
  EXPECT_EQ(error().kind(), ErrorKind::kNotFound);
  EXPECT_THAT(error().message(), HasSubstr("model-00002-of-00002.safetensors"));

  const auto name_file = [&](const std::string& name) {
    write_file(folder_ / "model.safetensors.index.json", R"({"weight_map":{"a":")" + name + R"("}})");
  };
  name_file(std::string(300, 'x'));
  EXPECT_EQ(error().kind(), ErrorKind::kNotFound);
  name_file("../" + folder_.filename().string() + "/model-00001-of-00002.safetensors");
  EXPECT_EQ(error().kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error().message(), HasSubstr("without folders"));
}

TEST_F(Detect, Failures) {
  const auto expect_failure = [this](const char* text) {
    const Error found = error();
    EXPECT_EQ(found.kind(), ErrorKind::kUnsupported) << found.message();
    EXPECT_EQ(found.code(), "SALIENT_DETECTION_FAILED");
    EXPECT_THAT(found.message(), AllOf(HasSubstr(text), HasSubstr(folder_.string())));
    EXPECT_FALSE(found.hint().empty());
  };
  expect_failure("neither weights nor a config");

  use("bnb");
  config(R"({"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":true}})");
  add_layer("q_proj", {{"weight", at::kByte, {1024, 1}}});
  write_tensors();
  expect_failure("bitsandbytes");

  use("fits_nothing");
  add_layer("q_proj", {{"qweight", at::kInt, {256, 64}}, {"qzeros", at::kInt, {2, 64}}, {"scales", at::kHalf, {3, 512}}});
  write_tensors();
  expect_failure("qweight I32 [256, 64]");

  use("no_scales");
  add_layer("q_proj", {{"qweight", at::kInt, {256, 64}}});
  write_tensors();
  expect_failure("q_proj");

  use("pickled");
  write_file(folder_ / "pytorch_model.bin", "PK\3\4");
  expect_failure("pytorch_model.bin");

  use("claims_without_weights");
  config(R"({"quantization_config":{"quant_method":"hqq"}})");
  expect_failure("hqq");

  folder_ = root_ / "nowhere";
  EXPECT_EQ(error().kind(), ErrorKind::kNotFound);
}

TEST_F(Detect, BrokenFilesAreNamed) {
  config(R"({"quantization_config":{"quant_method":"awq","bits":"four"}})");
  EXPECT_THAT(error().message(), AllOf(HasSubstr("config.json"), HasSubstr("bits")));
  EXPECT_EQ(error().kind(), ErrorKind::kCorruption);
  for (const char* text : {R"([])", R"({"quantization_config":[]})",
                           R"({"quantization_config":{"quant_method":"compressed-tensors","config_groups":{"a":3}}})"}) {
    config(text);
    EXPECT_EQ(error().kind(), ErrorKind::kCorruption) << text;
  }
  config("{}");
  write_file(folder_ / "model.safetensors", "broken");
  EXPECT_EQ(error().kind(), ErrorKind::kCorruption);
  EXPECT_THAT(error().message(), HasSubstr("model.safetensors"));
}

void append(std::string& bytes, uint64_t value, int width) {
  for (int i = 0; i < width; ++i) bytes += static_cast<char>(value >> (8 * i) & 0xff);
}
void append(std::string& bytes, const std::string& text) {
  append(bytes, text.size(), 8);
  bytes += text;
}

std::string gguf_file() {
  std::string bytes = "GGUF";
  append(bytes, 3, 4);
  append(bytes, 2, 8);  // tensors
  append(bytes, 3, 8);  // key-value pairs
  append(bytes, "general.architecture");
  append(bytes, 8, 4);
  append(bytes, "llama");
  append(bytes, "general.file_type");
  append(bytes, 4, 4);
  append(bytes, 15, 4);
  append(bytes, "tokenizer.ggml.tokens");
  append(bytes, 9, 4);
  append(bytes, 8, 4);
  append(bytes, 2, 8);
  append(bytes, "<s>");
  append(bytes, "a");
  append(bytes, "token_embd.weight");
  append(bytes, 2, 4);
  append(bytes, 512, 8);
  append(bytes, 10, 8);
  append(bytes, 12, 4);  // Q4_K
  append(bytes, 0, 8);
  append(bytes, "output_norm.weight");
  append(bytes, 1, 4);
  append(bytes, 512, 8);
  append(bytes, 0, 4);  // F32
  append(bytes, 0, 8);
  return bytes;
}

TEST_F(Detect, Gguf) {
  write_file(folder_ / "model.Q4_K_M.gguf", gguf_file());
  for (const fs::path& path : {folder_, folder_ / "model.Q4_K_M.gguf"}) {
    const DetectedModel model = detect_model(path);
    EXPECT_EQ(model.format, "gguf");
    EXPECT_EQ(model.version, "GGUF 3");
    EXPECT_EQ(model.parameters, 5120u + 512);
    EXPECT_EQ(model.dtype_bytes.at("Q4_K"), 5120u / 256 * 144);
    EXPECT_EQ(model.dtype_bytes.at("F32"), 2048u);
    EXPECT_FALSE(model.spec);
  }
}

TEST_F(Detect, TruncatedGgufIsCorruptionAtEveryLength) {
  const std::string whole = gguf_file();
  for (size_t length = 4; length < whole.size(); ++length) {
    write_file(folder_ / "m.gguf", whole.substr(0, length));
    ASSERT_EQ(error().kind(), ErrorKind::kCorruption) << length;
  }
}

TEST_F(Detect, TorchScript) {
  std::string zip("PK\3\4", 4);
  zip += std::string(26, '\0') + "model/constants.pkl";
  const size_t directory = zip.size();
  zip += std::string("PK\1\2", 4) + std::string(42, '\0') + "model/constants.pkl";
  std::string end("PK\5\6", 4);
  end += std::string(12, '\0');
  append(end, directory, 4);
  append(end, 0, 2);
  write_file(folder_ / "model.pt", zip + end);
  EXPECT_EQ(detect_model(folder_).format, "torchscript");
}

}  // namespace
}  // namespace salient::models

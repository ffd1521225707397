// The pages of docs/formats, and those of stages, are true: their ```sh blocks are run in a folder that has models/, configs/ and
// tests/ as the checkout has, and the worked examples between them are compared with what these commands made.
//
// A worked example is a block without a language whose first line is a file:
//   demo_gemm/model.safetensors                 .safetensors, .npz, .gguf, .json or .jsonl
//   P = model.layers.0.self_attn.q_proj         what P stands for below
//   P.qweight  I32 [256, 32]                    dtype and shape
//   P.qweight[0, 0] = 0xb857452a                an element; of bytes two hexadecimal digits; floats to the digits that are given
//   P.scales[0, 0..2] = 0.01706 0.01491 0.01498
//   general.file_type = 15                      metadata of a GGUF file or of safetensors
//   /spec/weight_bits = 4                       of JSON, by pointer
//   1: {"text":"                                how a line of JSON lines begins
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/json.h"
#include "common/text.h"
#include "models/io/gguf.h"
#include "models/io/npz.h"
#include "models/io/safetensors.h"
#include "support/documents.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

// What a file says of a tensor. `bytes`: rows of blocks as they are stored.
struct Found {
  std::string dtype;
  std::vector<int64_t> shape;
  at::Tensor values;
};

Found read_tensor(const fs::path& file, const std::string& name) {
  if (file.extension() == ".gguf") {
    const models::GgufFile opened(file);
    const models::GgufTensor& tensor = opened.tensor(name);
    const bool blocks = tensor.type != quant::GgmlType::kF32;
    return {std::string(quant::ggml_type_info(tensor.type).name), tensor.shape,
            blocks ? opened.view(name).clone() : opened.read(name)};
  }
  if (file.extension() == ".npz") {
    const models::NpzFile opened(file);
    const models::NpyHeader header = opened.header(name);
    return {models::safetensors_dtype_name(header.dtype), header.shape, opened.read(name)};
  }
  const models::SafetensorsFile opened(file);
  const models::TensorInfo& info = opened.info(name);
  return {models::safetensors_dtype_name(info.dtype), info.shape, opened.view(name).clone()};
}

std::string read_metadata(const fs::path& file, const std::string& key) {
  if (file.extension() == ".safetensors") return models::SafetensorsFile(file).metadata().at(key);
  const models::GgufFile opened(file);
  const models::GgufValue* value = opened.header().find(key);
  if (value == nullptr) return "nothing";
  if (const auto* text = std::get_if<std::string>(value)) return *text;
  if (const auto numbers = models::find_gguf_integers(opened.header(), key)) return fmt::format("{}", fmt::join(*numbers, " "));
  return models::gguf_type_name(*value);
}

// One element as the page writes `as`.
std::string element_text(const at::Tensor& values, const std::vector<int64_t>& index, const std::string& as) {
  at::Tensor one = values;
  for (const int64_t i : index) one = one.select(0, i);
  if (values.scalar_type() == at::kByte && !as.starts_with("0x")) return fmt::format("{:02x}", one.item<int64_t>());
  if (!at::isFloatingType(values.scalar_type())) {
    const auto bits = static_cast<unsigned>(8 * values.element_size());
    const uint64_t stored = one.view(-1).to(at::kLong).item<int64_t>() & (bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1);
    return as.starts_with("0x") ? fmt::format("0x{:0{}x}", stored, bits / 4) : fmt::format("{}", stored);
  }
  size_t digits = 0;
  bool leading = true;
  for (const char c : as) {
    leading = leading && (c == '0' || c == '.' || c == '-');
    digits += !leading && std::isdigit(static_cast<unsigned char>(c)) != 0 ? 1 : 0;
  }
  return fmt::format("{:.{}g}", one.item<double>(), std::max<size_t>(1, digits));
}

// What is wrong with a line of a worked example; nothing when it is true.
std::string check_line(const fs::path& file, const std::string& line) {
  static const std::regex kShape(R"re((\S+) +([A-Z][A-Z0-9_]*) \[([0-9, ]*)\])re");
  static const std::regex kElement(R"re((\S+)\[((?:[0-9]+, )*)([0-9]+)(?:\.\.([0-9]+))?\] = (.+))re");
  static const std::regex kPointer(R"re((/\S+) = (.+))re");
  static const std::regex kLine(R"re(([0-9]+): (.+))re");
  static const std::regex kMetadata(R"re(([^ \[]+) = (.+))re");
  std::smatch match;
  if (std::regex_match(line, match, kPointer)) {
    const Json value = read_json_file(file).at(Json::json_pointer(match[1].str()));
    const std::string found = value.is_string() ? value.get<std::string>() : value.dump();
    return found == match[2] ? "" : "found " + found;
  }
  if (std::regex_match(line, match, kShape)) {
    const Found found = read_tensor(file, match[1]);
    const std::string text = fmt::format("{} [{}]", found.dtype, fmt::join(found.shape, ", "));
    return text == fmt::format("{} [{}]", match[2].str(), match[3].str()) ? "" : "found " + text;
  }
  if (std::regex_match(line, match, kElement)) {
    const Found found = read_tensor(file, match[1]);
    std::vector<int64_t> index;
    for (const std::string& part : split(match[2].str(), ',')) {
      if (part.find_first_not_of(' ') != std::string::npos) index.push_back(std::stoll(part));
    }
    std::istringstream wanted(match[5].str());
    int64_t last = std::stoll(match[3]);
    const int64_t end = match[4].matched ? std::stoll(match[4]) : last;
    std::string texts, word;
    for (; last <= end; ++last) {
      if (!(wanted >> word)) return "fewer values than places";
      std::vector<int64_t> place = index;
      place.push_back(last);
      texts += (texts.empty() ? "" : " ") + element_text(found.values, place, word);
    }
    return texts == match[5] ? "" : "found " + texts;
  }
  if (std::regex_match(line, match, kMetadata)) {
    const std::string found = read_metadata(file, match[1]);
    return found == match[2] ? "" : "found " + found;
  }
  if (std::regex_match(line, match, kLine)) {
    const std::vector<std::string> lines = split(read_text_file(file), '\n');
    const size_t number = std::stoul(match[1]);
    if (number < 1 || number > lines.size()) return "there are fewer lines";
    return lines[number - 1].starts_with(match[2].str()) ? "" : "found " + lines[number - 1].substr(0, 120);
  }
  return "not understood";
}

bool is_worked_example(const test::CodeBlock& block) {
  static const std::regex kFile(R"re(\S+\.(safetensors|npz|gguf|json|jsonl))re");
  return block.language.empty() && !block.lines.empty() && std::regex_match(block.lines[0], kFile);
}

// Runs a page; what is wrong with it, a line each. `examples`: counts the lines that were compared.
std::vector<std::string> check_page(const std::string& markdown, const fs::path& folder, size_t& examples) {
  std::vector<std::string> wrong;
  for (const test::CodeBlock& block : test::read_document(markdown).blocks) {
    if (block.language == "sh") {
      for (const test::ShellCommand& command : test::shell_commands(block.lines, block.line)) {
        const std::vector<std::string> words = test::words_of_salient(command.words);
        if (words.empty()) {
          wrong.push_back(fmt::format("{}: '{}' is no command of the program; what a test cannot run is a block of bash",
                                      command.line, command.words[0]));
          continue;
        }
        const test::ProgramResult result = test::run_program(words, folder, {{"OMP_NUM_THREADS", "1"}});
        if (result.exit_code != 0)
          wrong.push_back(fmt::format("{}: salient {} ends with {}: {}", command.line, words[0], result.exit_code, result.err));
      }
    }
    if (!is_worked_example(block)) continue;
    std::string prefix;
    for (size_t i = 1; i < block.lines.size(); ++i) {
      std::string line = block.lines[i];
      if (line.starts_with("P = ")) {
        prefix = line.substr(4);
        continue;
      }
      if (line.starts_with("P.")) line = prefix + line.substr(1);
      ++examples;
      std::string problem;
      try {
        problem = check_line(folder / block.lines[0], line);
      } catch (const std::exception& error) {
        problem = error.what();
      }
      if (!problem.empty()) wrong.push_back(fmt::format("{}: {}: {}", block.line + static_cast<int>(i), line, problem));
    }
  }
  return wrong;
}

// A folder as the checkout, for commands that write beside models/.
class Checkout {
 public:
  Checkout() {
    for (const char* name : {"models", "configs", "tests"})
      fs::create_directory_symlink(test::source_folder() / name, path() / name);
  }
  const fs::path& path() const { return folder_.path(); }

 private:
  test::TemporaryFolder folder_;
};

std::vector<fs::path> checked_pages() {
  std::vector<fs::path> pages = {"docs/detection.md", "docs/store.md"};
  for (const auto& entry : fs::directory_iterator(test::source_folder() / "docs/formats")) {
    pages.push_back(entry.path().lexically_relative(test::source_folder()));
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

class FormatPage : public testing::TestWithParam<fs::path> {};

TEST_P(FormatPage, IsTrue) {
  const Checkout checkout;
  // What docs/formats/metal-marlin.md records with NumPy.
  models::NpzWriter activations(checkout.path() / "activations.npz");
  activations.add("model.layers.0.self_attn.q_proj.weight", at::ones({256}, at::kFloat));
  activations.commit();
  size_t examples = 0;
  const std::string markdown = read_text_file(test::source_folder() / GetParam());
  for (const std::string& problem : check_page(markdown, checkout.path(), examples))
    ADD_FAILURE() << GetParam().string() << ":" << problem;
}

INSTANTIATE_TEST_SUITE_P(Docs, FormatPage, testing::ValuesIn(checked_pages()), [](const testing::TestParamInfo<fs::path>& page) {
  std::string name = page.param.stem().string();
  std::erase_if(name, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; });
  return name;
});

TEST(FormatPages, MostHaveAWorkedExample) {
  size_t with_example = 0;
  for (const fs::path& page : checked_pages()) {
    const test::Document document = test::read_document(read_text_file(test::source_folder() / page));
    with_example += std::any_of(document.blocks.begin(), document.blocks.end(), is_worked_example) ? 1 : 0;
  }
  EXPECT_GE(with_example, 9u);
}

TEST(FormatPages, AWrongExampleIsFound) {
  const Checkout checkout;
  const std::string page =
      "```sh\nsalient inspect models/demo --json   # a comment\n```\n"
      "```\nmodels/demo/model.safetensors\nP = model.layers.0.self_attn.q_proj\nP.weight  BF16 [256, 256]\nP.weight[0, 0..1] = "
      "0.0311 -0.00778\n"
      "format = pt\n```\n"
      "```\nmodels/demo/config.json\n/hidden_size = 256\n```\n";
  size_t examples = 0;
  EXPECT_EQ(check_page(page, checkout.path(), examples), std::vector<std::string>{});
  EXPECT_EQ(examples, 4u);
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{{"0.0311", "0.0312"},
                                                                                 {"-0.00778", ""},
                                                                                 {"BF16", "F16"},
                                                                                 {"P.weight[0", "P.bias[0"},
                                                                                 {"hidden_size = 256", "hidden_size = 257"},
                                                                                 {"inspect models/demo", "inspect models/nowhere"},
                                                                                 {"salient inspect", "ls"}}) {
    std::string changed = page;
    changed.replace(changed.find(from), from.size(), to);
    EXPECT_EQ(check_page(changed, checkout.path(), examples).size(), 1u) << changed;
  }
}

}  // namespace
}  // namespace salient::pipeline

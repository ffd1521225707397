#include "models/io/weight_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/file.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class WeightFilesTest : public testing::Test {
 protected:
  void write(const std::string& name, const std::string& text = "x") { write_file(folder_.path() / name, text); }
  void write_index(const std::string& map) { write("model.safetensors.index.json", R"({"weight_map": )" + map + "}"); }
  WeightFiles found() const { return find_weight_files(folder_.path()); }
  fs::path at(const std::string& name) const { return folder_.path() / name; }

  test::TemporaryFolder folder_;
};

TEST_F(WeightFilesTest, OneFileGoesBeforeAnIndexAndAnIndexBeforeAllOthers) {
  write("b.safetensors");
  write("a.SafeTensors");
  write(".hidden.safetensors");
  EXPECT_THAT(found().safetensors, ElementsAre(at("a.SafeTensors"), at("b.safetensors")));
  write_index(R"({"x": "b.safetensors", "y": "b.safetensors"})");
  EXPECT_THAT(found().safetensors, ElementsAre(at("b.safetensors")));
  write("model.safetensors");
  EXPECT_THAT(found().safetensors, ElementsAre(at("model.safetensors")));
}

TEST_F(WeightFilesTest, OtherFormatsAreToldByTheirExtensions) {
  for (const char* name : {"m.gguf", "z.pt", "a.bin", "t.ts", "w.pth", "readme.md"}) write(name);
  EXPECT_THAT(found().safetensors, IsEmpty());
  EXPECT_THAT(found().gguf, ElementsAre(at("m.gguf")));
  EXPECT_THAT(found().pickled, ElementsAre(at("a.bin"), at("t.ts"), at("w.pth"), at("z.pt")));
  EXPECT_THAT(find_weight_files(at("a.bin")).pickled, IsEmpty());  // a file by itself: the two formats that say what they are
  write("one.safetensors");
  EXPECT_THAT(find_weight_files(at("one.safetensors")).safetensors, ElementsAre(at("one.safetensors")));
}

TEST_F(WeightFilesTest, AnIndexNamesFilesOfItsFolder) {
  const auto message = [&](ErrorKind kind) { return test::message_of([&] { found(); }, kind); };
  for (const char* name : {"../b.safetensors", "/etc/passwd", "..", ""}) {
    write_index(fmt::format(R"({{"x": "{}"}})", name));
    EXPECT_THAT(message(ErrorKind::kCorruption), HasSubstr("expected a file name without folders")) << name;
  }
  write_index(R"({"x": "b.safetensors"})");
  EXPECT_THAT(message(ErrorKind::kNotFound), HasSubstr("the shard b.safetensors is missing"));
  write_index(fmt::format(R"({{"x": "{}.safetensors"}})", std::string(5000, 'b')));
  message(ErrorKind::kNotFound);
  write_index("[]");
  EXPECT_THAT(message(ErrorKind::kCorruption), HasSubstr("weight_map is a JSON array, expected an object"));
}

}  // namespace
}  // namespace salient::models

#include "eval/wikitext_task.h"

#include <utility>

#include "eval/python_regex.h"
#include "eval/text_units.h"
#include "models/jinja/text.h"

namespace salient::eval {
namespace {

using Pair = std::pair<const char*, const char*>;

void replace_each(std::string& text, std::initializer_list<Pair> pairs) {
  for (const auto& [from, to] : pairs) text = models::jinja::replace_all(text, from, to, -1);
}

bool is_heading(std::string_view line) { return line.starts_with("= ") && line.ends_with(" ="); }

}  // namespace

std::vector<Json> wikitext_pages(std::string_view text) {
  std::vector<Json> pages;
  std::string page;
  const auto flush = [&] {
    if (!models::jinja::strip(page, nullptr, true, true).empty()) pages.push_back({{"page", page}});
    page.clear();
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size() - 1) + 1;
    const std::string_view line = text.substr(begin, end - begin);
    std::string heading(models::jinja::strip(line, nullptr, true, true));
    replace_each(heading, {{"= = =", "==="}, {"= =", "=="}});
    if (is_heading(heading)) {
      if (!page.empty()) page.pop_back();  // lines are joined, so the last one of a page has no end
      flush();
    }
    page += line;
    begin = end;
  }
  flush();
  return pages;
}

Json wikitext_detokenized_page(const Json& row, const std::string& where) {
  static const std::pair<PythonRegex, const char*> kPatterns[] = {
      {PythonRegex(R"(\(\s*([^\)]*?)\s*\))"), "(\\1)"}, {PythonRegex(R"(\[\s*([^\]]*?)\s*\])"), "[\\1]"},
      {PythonRegex(R"(\{\s*([^}]*?)\s*\})"), "{\\1}"},  {PythonRegex(R"("\s*([^"]*?)\s*")"), "\"\\1\""},
      {PythonRegex(R"('\s*([^']*?)\s*')"), "'\\1'"},
  };
  static const PythonRegex kQuotedDigit("/' [0-9]/");
  auto text = require<std::string>(row, "page", where);
  replace_each(text, {{"s '", "s'"}});
  text = kQuotedDigit.replace(text, "/'[0-9]/");  // the replacement is the reference's
  replace_each(text, {{" @-@ ", "-"}, {" @,@ ", ","}, {" @.@ ", "."}});
  replace_each(text, {{" : ", ": "}, {" ; ", "; "}, {" . ", ". "}, {" ! ", "! "}, {" ? ", "? "}, {" , ", ", "}});
  for (const auto& [pattern, replacement] : kPatterns) text = pattern.replace(text, replacement);
  replace_each(text, {{"= = = =", "===="},
                      {"= = =", "==="},
                      {"= =", "=="},
                      {" \u00b0 ", "\u00b0"},
                      {" \n", "\n"},
                      {"\n ", "\n"},
                      {" N ", " 1 "},
                      {" 's", "'s"}});
  return text;
}

std::vector<Score> score_wikitext(const Json& row, const Response& response, const std::string& where) {
  return weighted_scores(response.log_probs.at(0), require<std::string>(row, "page", where));
}

}  // namespace salient::eval

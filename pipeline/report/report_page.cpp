#include "pipeline/report/report_page.h"

#include <algorithm>

#include "common/error.h"
#include "models/jinja/text.h"

namespace salient::pipeline {
namespace {

using models::jinja::escape_html;

std::string_view file_text(std::string_view name) {
  for (const ReportFile& file : report_files()) {
    if (file.name == name) return file.text;
  }
  fail(ErrorKind::kInternal, "{}: no such file of the report", name);
}

// JSON inside a script element: no "</script>" and no "<!--" may stand in it.
std::string script_json(const Json& data) {
  std::string out;
  const std::string text = dump_json(data);
  out.reserve(text.size() + text.size() / 64);
  for (const char c : text) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

// `page` with each {{name}} of the template replaced once; what is put in is not read again.
std::string fill(std::string_view page, const std::vector<std::pair<std::string_view, std::string>>& values) {
  std::string out;
  for (size_t at = 0;;) {
    const size_t open = page.find("{{", at);
    out += page.substr(at, open - at);
    if (open == std::string_view::npos) return out;
    const size_t close = page.find("}}", open);
    const std::string_view name = page.substr(open + 2, close - open - 2);
    const auto it = std::find_if(values.begin(), values.end(), [&](const auto& value) { return value.first == name; });
    if (close == std::string_view::npos || it == values.end())
      fail(ErrorKind::kInternal, "page.html of the report: nothing is called '{}'", name.substr(0, 40));
    out += it->second;
    at = close + 2;
  }
}

}  // namespace

std::string report_page(const Json& data) {
  std::string names;
  std::string verdicts;
  for (const Json& model : data.at("models")) {
    const std::string name = model.at("name").get<std::string>();
    names += (names.empty() ? "" : ", ") + name;
    verdicts +=
        "<p><strong>" + escape_html(name) + "</strong>: " + escape_html(model.at("evaluation").value("verdict", "")) + "</p>\n";
  }
  std::string script;
  for (const char* file : {"dom.js", "plots.js", "layers.js", "difference.js", "samples.js", "page.js"}) script += file_text(file);
  return fill(file_text("page.html"), {{"title", escape_html(names)},
                                       {"style", std::string(file_text("page.css"))},
                                       {"verdicts", verdicts},
                                       {"data", script_json(data)},
                                       {"script", script}});
}

}  // namespace salient::pipeline

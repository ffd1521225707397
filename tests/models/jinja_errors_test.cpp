// Errors: their kind, their line, and that hostile templates end in one.
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "common/error.h"
#include "models/jinja/json_text.h"
#include "models/jinja/template.h"
#include "models/jinja/text.h"

namespace salient::models::jinja {
namespace {

std::string repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

// The error of parsing and rendering `source`; fails when there is none.
Error error_of(const std::string& source, Limits limits = {}) {
  RenderOptions options;
  options.limits = limits;
  try {
    const std::string text = Template::parse(source, "model/chat_template.jinja").render({}, options);
    ADD_FAILURE() << "no error from: " << source.substr(0, 100) << "\nfound: " << text.substr(0, 100);
  } catch (const Error& error) {
    return error;
  }
  return Error(ErrorKind::kInternal, "");
}

void expect_error(const std::string& source, ErrorKind kind, const std::string& part) {
  SCOPED_TRACE(source);
  const Error error = error_of(source);
  EXPECT_EQ(error.kind(), kind) << error.what();
  EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
}

TEST(JinjaErrors, SyntaxErrorsSayLineFoundAndExpected) {
  expect_error("a\n\n{{ 1 + }}", ErrorKind::kCorruption, "model/chat_template.jinja:3: found '}}', expected an expression");
  expect_error("{% if x %}\n{% endfor %}", ErrorKind::kCorruption, ":2: found the tag 'endfor', expected '{% elif %}'");
  expect_error("{% for x in y %}\n\n", ErrorKind::kCorruption, "found the end of the template, expected '{% endfor %}'");
  expect_error("\n{# never closed", ErrorKind::kCorruption, ":2: a comment that starts here has no end");
  expect_error("{{ 'abc }}", ErrorKind::kCorruption, ":1: a string that starts here has no end");
  expect_error("{{ (1] }}", ErrorKind::kCorruption, "found ']', expected ')'");
  expect_error("{{ x[, 'a'] }}", ErrorKind::kCorruption, "found ',', expected an expression");
  expect_error("\n{% break %}", ErrorKind::kCorruption, ":2: found 'break' outside of a loop");
  expect_error("\xff{{ 1 }}", ErrorKind::kCorruption, "not valid UTF-8");
}

TEST(JinjaErrors, UnsupportedThingsAreNamed) {
  expect_error("\n{% include 'x' %}", ErrorKind::kUnsupported, ":2: the tag 'include' is not supported");
  expect_error("{% block a %}{% endblock %}", ErrorKind::kUnsupported, "the tag 'block' is not supported");
  expect_error("{% frobnicate %}", ErrorKind::kUnsupported, "the tag 'frobnicate' is unknown");
  expect_error("\n\n{{ 1 | frobnicate }}", ErrorKind::kUnsupported, ":3: the filter 'frobnicate' is unknown");
  expect_error("{{ 1 is frobnicate }}", ErrorKind::kUnsupported, "the test 'frobnicate' is unknown");
  expect_error("{{ 9223372036854775807 + 1 }}", ErrorKind::kUnsupported, "64 bits");
}

TEST(JinjaErrors, RunningErrorsSayTheLine) {
  expect_error("a\n{{ raise_exception('roles must alternate') }}", ErrorKind::kInvalidArgument,
               "model/chat_template.jinja:2: the template refuses this conversation: roles must alternate");
  expect_error("a\nb\n{{ missing.x }}", ErrorKind::kInvalidArgument, ":3: 'missing' is undefined");
  expect_error("{% macro m(a) %}\n{{ a + 1 }}{% endmacro %}\n\n{{ m('x') }}", ErrorKind::kInvalidArgument,
               ":2: '+' is not possible between 'str' and 'int'");
}

TEST(JinjaErrors, HostileTemplatesEnd) {
  Limits limits;
  limits.steps = 200'000;
  limits.bytes = size_t{8} << 20;
  const std::string many = "{% for a in range(100000) %}";
  for (const std::string& source : {
           "{{ " + repeat("(", 100000) + "1" + repeat(")", 100000) + " }}",
           "{{ " + repeat("[", 100000) + repeat("]", 100000) + " }}",
           "{{ " + repeat("not ", 100000) + "1 }}",
           "{{ " + repeat("-", 100000) + "1 }}",
           "{{ 1" + repeat(" + 1", 100000) + " }}",
           "{{ a" + repeat(".b", 100000) + " }}",
           "{{ 1" + repeat(" if 1 else 1", 100000) + " }}",
           repeat("{% if 1 %}", 100000),
           "{% set " + repeat("(", 100000) + "a = 1 %}",
           std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
           std::string("{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ [1]|map('default')|list }}{{ a() }}{% endmacro "
                       "%}{{ a() }}"),
           many + many + many + "{% endfor %}{% endfor %}{% endfor %}",
           std::string("{% set ns = namespace(x='a') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"),
           std::string("{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}"),
           std::string(
               "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}"),
           std::string(
               "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}"),
           "{% set ns = namespace(x=[]) %}" + many + "{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
           "{% set ns = namespace(x=[1]) %}" + many + "{% set ns.x = ns.x | map('string') %}{% endfor %}{{ ns.x | list }}",
           "{% set ns = namespace(x=1) %}" + many + "{% set ns.x = cycler(ns.x) %}{% endfor %}",
           std::string("{{ 'a' * 1000000000000 }}"),
           std::string("{{ [1] * 1000000000000 }}"),
           std::string("{{ 'a' | center(1000000000000) }}"),
           std::string("{{ 'a' | indent(1000000000000, true) }}"),
           std::string("{{ '%1000000000d' % 1 }}"),
           std::string("{{ '{:1000000000}'.format(1) }}"),
           std::string("{{ 'a'.ljust(1000000000) }}"),
           std::string("{{ '%.1000000000f' % 1.5 }}"),
           std::string("{{ [1] | batch(1000000000, 0) | list }}"),
           std::string("{{ [1] | slice(1000000000) | list }}"),
           std::string("{{ ('a' * 100000).replace('a', 'b' * 100000) }}"),
           std::string("{{ [1] | tojson(indent=1000000000) }}"),
           std::string("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}"),
           std::string("{% set ns = namespace() %}{% set ns, ns.x = 1, 2 %}"),
           std::string("{% set ns = namespace() %}{% set ns.a = ns %}{% for i in range(390) %}{% set ns.a = [ns.a] %}{% endfor %}"
                       "{{ ns }}"),
           std::string("{% set ns = namespace() %}{% set ns.it = ([ns] * 2000)|map(attribute='it')|map('list') %}"
                       "{% for i in range(430) %}{% set ns.it = ns.it|select %}{% endfor %}{{ ns.it|list }}"),
           std::string("{% set ns = namespace() %}{% for i in range(10000) %}{% for j in [0] %}{% set ns.l = loop %}{% endfor %}"
                       "{% set x = ns.l.changed(ns.p) %}{% set ns.p = ns.l %}{% endfor %}"),
           "{% set ns = namespace() %}{% for x in [0] recursive %}{% set ns.v = loop %}{{ loop([" + repeat("[", 150) + "loop" +
               repeat("]", 150) + "]) }}{% endfor %}",
           std::string("{% for i in [1] %}{{ loop.changed(loop) }}{{ raise_exception('x') }}{% endfor %}"),
           std::string("{{ (['x' * 1000000] * 1000)|map('upper')|list|length }}"),
           std::string("{{ ([0] * 1000)|tojson(separators=('x' * 1000000, ':')) }}"),
           "{% set d = dict(range(10000)|map('string')|batch(2)) %}" + many + "{% set x = namespace(d) %}{% endfor %}",
           "{% set d = dict(range(10000)|map('string')|batch(2)) %}" + many + "{% set x = dict(**d) %}{% endfor %}",
           many + "{% set x = ('a' * 50000 + 'b') in ('a' * 100000) %}{% endfor %}",
           many + "{{ range(100000)|sum }}{% endfor %}",
           std::string("{{ [1, 2] * 9223372036854775807 }}"),
           std::string("{{ -9223372036854775807|round(-1) }}{{ 9223372036854775807|round(-14) }}{{ 1 + '' }}"),
           std::string("{{ '%*d' % (-9223372036854775807 - 1, 1) }}"),
           std::string("{{ range(0, 10, 3)[::9223372036854775807] }}"),
       }) {
    const Error error = error_of(source, limits);
    EXPECT_NE(error.kind(), ErrorKind::kInternal) << source.substr(0, 100);
  }
}

// What Python gives at the ends of 64 bits, of keys that are unequal to themselves, and where an item asks for its own loop.
TEST(JinjaErrors, EndsOfTheNumbersAreWhatPythonGives) {
  const auto text_of = [](const std::string& source) { return Template::parse(source, "t").render({}); };
  const std::string least = "(-9223372036854775807 - 1)";
  EXPECT_EQ(text_of("{{ 'a'.ljust(" + least + ") }}{{ 'a'.center(" + least + ") }}"), "aa");
  EXPECT_EQ(text_of("{{ 'a b'.split(' ', " + least + ") }}{{ 'a b'.split(none, " + least + ") }}"), "['a', 'b']['a', 'b']");
  EXPECT_EQ(text_of("{{ 'abc'|truncate(9223372036854775807) }}"), "abc");
  EXPECT_EQ(text_of("{% set r = range(-9000000000000000000, 9000000000000000000, 6000000000000000000) %}{{ r[2] }} {{ r|list }}"),
            "3000000000000000000 [-9000000000000000000, -3000000000000000000, 3000000000000000000]");
  EXPECT_EQ(text_of("{{ ['a']|groupby('upper')|list|length }}"), "1");
  // Python refuses to ask a generator for an item while it makes one; here it must only end.
  try {
    text_of(
        "{% set ns = namespace() %}{% for x in [1, 2, 3] if ns.l is undefined or ns.l.length < 0 %}{% set ns.l = loop %}{% endfor "
        "%}");
  } catch (const Error& error) {
    EXPECT_NE(error.kind(), ErrorKind::kInternal);
  }
}

// Each sigma once looked at all that stands before it.
TEST(JinjaErrors, SigmasAreLoweredByTheirNeighbours) {
  const auto lower = [](const std::string& text) { return Template::parse("{{ '" + text + "'|lower }}", "t").render({}); };
  EXPECT_EQ(lower("\u039f\u0394\u03a3 \u03a3\u0391 \u03a3"), "\u03bf\u03b4\u03c2 \u03c3\u03b1 \u03c3");
  EXPECT_EQ(lower("A\u0301\u03a3"), "a\u0301\u03c2");
  EXPECT_EQ(lower(repeat("\u03a3", 50000)).size(), 100000u);
}

// std::string::rfind compares the whole part at every position.
TEST(JinjaErrors, SearchesFromTheRightTakeTheTimeOfOneReading) {
  const std::string text = "{% set a = 'a' * 3000000 %}{% set part = a ~ 'b' %}{% set text = a ~ a %}";
  EXPECT_EQ(
      Template::parse(text + "{{ text.rfind(part) }} {{ text.rsplit(part)|length }} {{ text.rpartition(part)[0]|length }}", "t")
          .render({}),
      "-1 1 0");
  EXPECT_EQ(Template::parse(text + "{{ (part ~ text).rfind(part) }}", "t").render({}), "0");
}

TEST(JinjaErrors, TheLastPlaceIsThatOfRfind) {
  std::mt19937 random(5);
  const auto letters = [&](size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += static_cast<char>('a' + random() % 2);
    return out;
  };
  int found = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = letters(random() % 300);
    const std::string part = letters(random() % 40);
    for (auto copies = random() % 3; copies > 0; --copies) text.insert(random() % (text.size() + 1), part);
    ASSERT_EQ(find_last_text(text, part), text.rfind(part)) << text << " " << part;
    found += text.find(part) != std::string::npos ? 1 : 0;
  }
  EXPECT_GT(found, 5000);
  EXPECT_LT(found, 19000);
}

TEST(JinjaErrors, ClosuresThatHoldThemselvesAreLetGo) {
  const std::string source =
      "{% set ns = namespace() %}{% set ns.me = ns %}{% macro m() %}{{ ns.x }}{% endmacro %}{% set ns.m = m %}"
      "{% for i in range(20000) %}{% set before = ns.f %}{% macro g() %}{{ before }}{% endmacro %}{% set ns.f = g %}{% set ns.l = "
      "loop %}{% endfor %}{{ ns.m() }}ok";
  EXPECT_EQ(Template::parse(source, "t").render({}), "ok");  // leaks and deep destruction show under sanitizers
}

}  // namespace
}  // namespace salient::models::jinja

#!/usr/bin/env python3
"""usage: scripts/goldens/templates_strict.py  -- writes tests/data/templates/strict.json

What Jinja2 3.1.6 renders, or that it fails, in the environment in which lm-evaluation-harness 0.4.13 renders the templates of tasks (lm_eval/utils.py): a name that
is not there (`typo`) and parts that are not there in every position.
"""
import json
import pathlib

import jinja2

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "templates" / "strict.json"
VARIABLES = dict(question="  What? ", choices=["a", "b"], answer=1, flag=False, row=dict(text="t", none=None), rows=[dict(n=2, s="x"), dict(n=1)], empty="", words="one two")
PLACES = ["typo", "row.typo", "choices[7]", "rows[1].s", "(empty | list | first)", "('x' if flag)"]
FORMS = """
{{ @ }} ¦ {{ 'a' ~ @ }} ¦ {{ @ ~ 'a' }} ¦ {{ @ + 'a' }} ¦ {{ 'a' + @ }} ¦ {{ @ | trim }} ¦ {{ @ | replace('a', 'b') }} ¦ {{ 'aba' | replace(@, 'b') }}
{{ 'aba' | replace('a', @) }} ¦ {{ @ | join(', ') }} ¦ {{ [1, @] | join(', ') }} ¦ {{ [1, 2] | join(@) }} ¦ {{ @ | length }} ¦ {{ @ | count }}
{{ [@] | length }} ¦ {% if @ %}y{% endif %} ¦ {% if not @ %}y{% endif %} ¦ {% if flag and @ %}y{% endif %} ¦ {% if flag or @ %}y{% endif %}
{% if answer or @ %}y{% endif %} ¦ {% if @ and flag %}y{% endif %} ¦ {{ @ and 1 }} ¦ {{ @ or 'else' }} ¦ {{ 1 or @ }} ¦ {{ not @ }}
{{ 'y' if @ else 'n' }} ¦ {{ 'y' if @ }} ¦ {{ @ if answer else 'n' }} ¦ {{ 'y' if answer else @ }} ¦ {{ @ == 'a' }} ¦ {{ 'a' == @ }} ¦ {{ @ != 'a' }}
{{ @ == @ }} ¦ {{ none == @ }} ¦ {{ [@] == ['a'] }} ¦ {{ @ < 1 }} ¦ {{ 1 >= @ }} ¦ {{ @ in choices }} ¦ {{ @ in [] }} ¦ {{ 'a' in @ }}
{{ @ not in choices }} ¦ {{ @ is defined }} ¦ {{ @ is undefined }} ¦ {{ @ is not defined }} ¦ {{ @ is none }} ¦ {{ @ is string }} ¦ {{ @ is number }}
{{ @ is mapping }} ¦ {{ @ is sequence }} ¦ {{ @ is iterable }} ¦ {{ @ is sameas none }} ¦ {{ @ is odd }} ¦ {{ @ is eq 1 }} ¦ {{ @ is in choices }}
{{ @ is lower }} ¦ {{ @ | default('d') }} ¦ {{ @ | d('d', true) }} ¦ {{ @ | default(@) }} ¦ {{ @ | upper }} ¦ {{ @ | lower }} ¦ {{ @ | capitalize }}
{{ @ | title }} ¦ {{ @ | string }} ¦ {{ @ | int }} ¦ {{ @ | int(3) }} ¦ {{ @ | float }} ¦ {{ @ | abs }} ¦ {{ @ | round }} ¦ {{ @ | list }}
{{ @ | first }} ¦ {{ @ | last }} ¦ {{ @ | sort }} ¦ {{ @ | unique | list }} ¦ {{ @ | sum }} ¦ {{ @ | min }} ¦ {{ @ | max }} ¦ {{ @ | reverse }}
{{ @ | map('upper') | list }} ¦ {{ @ | select | list }} ¦ {{ [@] | select | list }} ¦ {{ [1, @] | select('defined') | list }}
{{ @ | selectattr('n') | list }} ¦ {{ @ | batch(2) | list }} ¦ {{ @ | wordcount }} ¦ {{ @ | indent }} ¦ {{ @ | truncate(3) }} ¦ {{ @ | e }}
{{ @ | safe }} ¦ {{ @ | format(1) }} ¦ {{ '%s' | format(@) }} ¦ {{ '%s' % @ }} ¦ {{ @ | tojson }} ¦ {{ @ | items | list }} ¦ {{ @ | dictsort }}
{{ @ | center(3) }} ¦ {{ @ | wordwrap(3) }} ¦ {% for x in @ %}{{ x }}{% endfor %}
{% for x in @ %}{{ x }}{% else %}none{% endfor %} ¦ {% for x in choices if @ %}{{ x }}{% endfor %} ¦ {% for x in [@] %}x{% endfor %}
{% set x = @ %}ok|{% set x = @ %}{{ x }} ¦ {% set x = @ %}{{ x is defined }} ¦ {{ @.more }} ¦ {{ @['more'] }} ¦ {{ @[0] }} ¦ {{ @() }}
{{ @.strip() }} ¦ {{ @[1:] }} ¦ {{ choices[@] }} ¦ {{ row[@] }} ¦ {{ {'k': @} }} ¦ {{ {@: 1} }} ¦ {{ [@] }} ¦ {{ (@, 1) }} ¦ {{ -@ }} ¦ {{ @ * 2 }}
{{ 'x' * @ }} ¦ {{ @ // 2 }} ¦ {{ @ ** 2 }} ¦ {{ question.strip(@) }} ¦ {{ question.replace('W', @) }} ¦ {{ words.split(@) }} ¦ {{ ', '.join(@) }}
{{ ', '.join([@]) }} ¦ {{ choices.index(@) }} ¦ {{ range(@) }} ¦ {{ range(@) | list }} ¦ {{ row.get('text', @) }} ¦ {{ row.get('gone', @) }}
{{ row.get(@) }} ¦ {{ 'ok' if row.get('gone') is none }} ¦ {% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(1, @) }}
{% macro m(a, b) %}{{ a }}{% endmacro %}{{ m(1, @) }} ¦ {% macro m(a) %}{{ a }}{% endmacro %}{{ m() }} ¦ {% filter upper %}{{ @ }}{% endfilter %}
{{ [[1, @], [1, 2]] | map('first') | join }} ¦ {{ @ is defined and @ }} ¦ {{ @ is defined and @ == 1 }} ¦ {{ @ if @ is defined else 'd' }}
"""
PLAIN = ["{{ question | trim }}", "{{ rows | map(attribute='s') | list }}", "{{ rows | map(attribute='s') | join }}", "{{ rows | map(attribute='s', default='-') | join }}", "{{ rows | sum(attribute='n') }}",
         "{{ rows | sum(attribute='s') }}", "{{ rows | selectattr('s') | list | length }}", "{{ rows | selectattr('s', 'defined') | list | length }}", "{{ rows | rejectattr('s') | list | length }}",
         "{{ rows | sort(attribute='n') | map(attribute='n') | join }}", "{{ rows | sort(attribute='s') | length }}", "{{ rows | groupby('s') | length }}", "{{ rows | unique(attribute='s') | list | length }}",
         "{{ rows | max(attribute='n') }}", "{{ rows | join(attribute='s') }}", "{{ [] | first }}", "{{ [] | first | default('d') }}", "{{ [] | max }}", "{% for r in rows %}{{ r.s }}{% endfor %}",
         "{% for r in rows %}{{ loop.previtem }}{% endfor %}", "{% for r in rows %}{{ loop.previtem is defined }}{% endfor %}", "{% for r in rows %}{% if loop.nextitem %}y{% endif %}{% endfor %}", "{{ row.none }}{{ row.none == none }}"]


def render(source):
    environment = jinja2.Environment(loader=jinja2.BaseLoader(), undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    try:
        return dict(source=source, text=environment.from_string(source).render(**VARIABLES))
    except Exception as error:  # every error counts: the test only asks that there is one
        return dict(source=source, error=type(error).__name__)


forms = [form for line in FORMS.strip().split("\n") for form in line.split(" ¦ ")]
rendered = [render(source) for source in [form.replace("@", place) for form in forms for place in PLACES] + PLAIN]
rendered = [one for one in rendered if " object at 0x" not in one.get("text", "") ]
OUT.write_text(json.dumps(dict(made_by=dict(jinja2=jinja2.__version__), variables=VARIABLES, snippets=rendered), ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
print(len(forms), len(rendered), sum("error" in one for one in rendered))

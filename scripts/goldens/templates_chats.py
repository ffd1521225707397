"""Chat templates with the constructs that published ones use, written for these tests, and conversations to render with them."""

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

TEMPLATES = {}

# Llama 3.x: header and end-of-turn marks, tools in the first question or in the system turn, a date that may come from the clock.
TEMPLATES["llama3"] = r"""{{- bos_token }}
{%- if extra_tools is defined %}{% set tools = extra_tools %}{% endif %}
{%- if inline_tools is not defined %}
    {%- set inline_tools = true %}
{%- endif %}
{%- if date_string is not defined %}
    {%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "1 Jan 2024" %}
{%- endif %}
{%- set rules = "" %}
{#- The instructions leave the list before the turns are written. -#}
{%- if messages[0].role == 'system' %}
    {%- set rules = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}

{#- Opening turn -#}
{{- "[[system]]\n\n" }}
{%- if python_tools is defined or tools is not none %}
    {{- "Runtime: on\n" }}
{%- endif %}
{%- if python_tools is defined %}
    {{- "Modules: " + python_tools | reject('equalto', 'interpreter') | join(", ") + "\n\n"}}
{%- endif %}
{{- "Date: " + date_string + "\n\n" }}
{%- if not inline_tools and tools is not none %}
    {%- for tool in tools %}
        {{- tool | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- rules ~ "[[/]]" }}

{%- if inline_tools and not tools is none %}
    {%- if messages | length == 0 %}
        {{- raise_exception("the tools need a question to stand in") }}
    {%- endif %}
    {%- set question = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
    {{- '[[user]]\n\n' -}}
    {{- 'Reply as {"name": ..., "parameters": {...}}.' }}
    {%- for tool in tools %}
        {{- "\n\n" + tool | tojson(indent=4) }}
    {%- endfor %}
    {{- "\n\n" + question + "[[/]]" }}
{%- endif %}

{%- for turn in messages %}
    {%- if turn.role in ['tool', 'ipython'] %}
        {{- "[[ipython]]\n\n" }}
        {{- turn.content | tojson if turn.content is mapping or turn.content is iterable else turn.content }}
        {{- "[[/]]" }}
    {%- elif 'tool_calls' in turn %}
        {%- if turn.tool_calls|length != 1 %}
            {{- raise_exception("one call a turn, please") }}
        {%- endif %}
        {%- set wanted = turn.tool_calls[0].function %}
        {{- '[[assistant]]\n\n' -}}
        {%- if python_tools is defined and wanted.name in python_tools %}
            {{- "[[py]]" + wanted.name + ".call(" }}
            {%- for key, value in wanted.arguments | items %}
                {{- key + '="' + value + '"' + (", " if not loop.last else "") }}
            {%- endfor %}
            {{- ")" }}
        {%- else %}
            {{- '{"name": "' + wanted.name + '", "parameters": ' + wanted.arguments | tojson + "}" }}
        {%- endif %}
        {{- "[[/]]" }}
    {%- else %}
        {{- '[[' + turn['role'] + ']]\n\n' + turn['content'] | trim + '[[/]]' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[[assistant]]\n\n' }}
{%- endif %}
"""

# Qwen 2.5: a default system text, tools as JSON lines, neighbouring tool answers in one user turn.
TEMPLATES["qwen2_5"] = r"""{%- set first = messages[0] %}
{%- set rules = first['content'] if first['role'] == 'system' else 'Be of use.' %}
{{- '<|b|>system\n' + rules }}
{%- if tools %}
    {{- "\n\n# Functions\n<list>" }}
    {%- for tool in tools %}{{ "\n" }}{{ tool | tojson }}{% endfor %}
    {{- "\n</list>\nForm: {\"name\": <name>, \"arguments\": <object>}" }}
{%- endif %}
{{- '<|e|>\n' }}
{%- for turn in messages %}
    {%- if turn.role == "tool" %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != "tool" %}
            {{- '<|b|>user' }}
        {%- endif %}
        {{- '\n<result>\n' }}{{ turn.content }}{{ '\n</result>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|e|>\n' }}
        {%- endif %}
    {%- elif turn.role == "assistant" and turn.tool_calls %}
        {{- '<|b|>' + turn.role }}
        {%- if turn.content %}{{ '\n' + turn.content }}{% endif %}
        {%- for call in turn.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\n<use>\n{"name": "' }}{{ call.name }}{{ '", "arguments": ' }}{{ call.arguments | tojson }}{{ '}\n</use>' }}
        {%- endfor %}
        {{- '<|e|>\n' }}
    {%- elif (turn.role == "system" and not loop.first) or turn.role != "system" %}
        {{- '<|b|>' + turn.role + '\n' + turn.content + '<|e|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|b|>assistant\n' }}
{%- endif %}
"""

# Qwen 3: the last real question is searched backwards, reasoning before it is dropped, thinking can be switched off.
TEMPLATES["qwen3"] = r"""{%- set state = namespace(searching=true, question=messages|length - 1) %}
{%- for turn in messages[::-1] %}
    {%- set place = messages|length - loop.index %}
    {%- if state.searching and turn.role == "user" and turn.content is string and not(turn.content.startswith('<result>') and turn.content.endswith('</result>')) %}
        {%- set state.searching = false %}
        {%- set state.question = place %}
    {%- endif %}
{%- endfor %}
{%- if tools %}
    {{- '<|b|>system\n' }}
    {%- if messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}
    {{- "Functions:" }}
    {%- for tool in tools %}
        {{- "\n" ~ (tool | tojson) }}
    {%- endfor %}
    {{- "<|e|>\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|b|>system\n' + messages[0].content + '<|e|>\n' }}
{%- endif %}
{%- for turn in messages %}
    {%- set body = turn.content if turn.content is string else '' %}
    {%- if turn.role == "assistant" %}
        {%- set thought = '' %}
        {%- if turn.reasoning_content is string %}
            {%- set thought = turn.reasoning_content %}
        {%- elif '</think>' in body %}
            {%- set thought = body.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set body = body.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {{- '<|b|>' + turn.role + '\n' }}
        {%- if loop.index0 > state.question and (loop.last or thought) %}
            {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + body.lstrip('\n') }}
        {%- else %}
            {{- body }}
        {%- endif %}
        {%- for call in turn.tool_calls or [] %}
            {{- '\n' if not loop.first or body }}
            {%- if call.function %}{% set call = call.function %}{% endif %}
            {{- '<use>\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {%- if call.arguments is string %}
                {{- call.arguments }}
            {%- else %}
                {{- call.arguments | tojson }}
            {%- endif %}
            {{- '}\n</use>' }}
        {%- endfor %}
        {{- '<|e|>\n' }}
    {%- elif turn.role == "tool" %}
        {{- '<|b|>user' if loop.first or loop.previtem.role != "tool" }}
        {{- '\n<result>\n' + body + '\n</result>' }}
        {{- '<|e|>\n' if loop.last or loop.nextitem.role != "tool" }}
    {%- elif turn.role == "user" or not loop.first %}
        {{- '<|b|>' + turn.role + '\n' + body + '<|e|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|b|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""

# Mistral 7B v0.1: one line, alternation by parity.
TEMPLATES["mistral_v1"] = (
    "{{ bos_token }}{% for turn in messages %}{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{% if turn['role'] == 'assistant' %}{{ turn['content'] ~ eos_token ~ ' ' }}"
    "{% elif turn['role'] == 'user' %}{{ '(Q) ' + turn['content'] + ' (/Q)' }}"
    "{% else %}{{ raise_exception('no role ' ~ turn['role'] ~ ' here') }}{% endif %}{% endfor %}"
)

# Mistral v0.3 and Nemo: tools before the last question, identifiers of nine characters, alternation counted past tool turns.
TEMPLATES["mistral_tools"] = r"""{%- macro check_id(text) %}
    {%- if text is not defined or text|length != 9 %}{{ raise_exception("an identifier has nine characters") }}{% endif %}
{%- endmacro %}
{%- set turns = messages %}
{%- if messages[0]["role"] == "system" %}
    {%- set rules = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- endif %}
{%- set questions = turns | selectattr("role", "equalto", "user") | list %}
{%- set seen = namespace() %}
{%- set seen.count = 0 %}
{%- for turn in turns if turn.role not in ("tool", "tool_results") and not turn.tool_calls %}
    {%- if (turn["role"] == "user") != (seen.count % 2 == 0) %}
        {{- raise_exception("turn " ~ seen.count ~ " is of the wrong role") }}
    {%- endif %}
    {%- set seen.count = seen.count + 1 %}
{%- endfor %}

{{- bos_token }}
{%- for turn in turns %}
    {%- if turn["role"] == "user" %}
        {%- if tools is not none and turn == questions[-1] %}
            {{- "(TOOLS) [" }}
            {%- for tool in tools %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool.function.items() if key != "return" %}
                    {%- if value is string %}
                        {{- '"' + key + '": "' + value + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + value|tojson }}
                    {%- endif %}
                    {{- ", " if not loop.last }}
                {%- endfor %}
                {{- "}}" ~ ("]" if loop.last else ", ") }}
            {%- endfor %}
            {{- "(/TOOLS)" }}
        {%- endif %}
        {{- "(Q) " }}
        {%- if loop.last and rules is defined %}
            {{- rules + "\n\n" }}
        {%- endif %}
        {{- turn["content"] + "(/Q)" }}
    {%- elif turn.tool_calls is defined and turn.tool_calls is not none %}
        {{- "(CALLS) [" }}
        {%- for call in turn.tool_calls %}
            {{- check_id(call.id) }}
            {%- set text = call.function|tojson %}
            {{- text[:-1] ~ ', "id": "' ~ call.id ~ '"}' }}
            {{- ", " if not loop.last else "]" + eos_token }}
        {%- endfor %}
    {%- elif turn["role"] == "assistant" %}
        {{- " " + turn["content"]|trim + eos_token}}
    {%- elif turn["role"] in ("tool", "tool_results") %}
        {%- set content = turn.content %}
        {%- if content is defined and content.content is defined %}
            {%- set content = content.content %}
        {%- endif %}
        {{- check_id(turn.tool_call_id) }}
        {{- '(RESULT) {"content": ' + content|string + ', "call_id": "' + turn.tool_call_id + '"}(/RESULT)' }}
    {%- else %}
        {{- raise_exception("unknown role " + turn["role"]) }}
    {%- endif %}
{%- endfor %}
"""

# Gemma 2 has no system turn: an error. Gemma 3 folds it into the first question; content may be a list of parts.
TEMPLATES["gemma2"] = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('system turns are not for this model') }}{% endif %}"
    "{% for turn in messages %}{% if loop.index0 % 2 != (0 if turn.role == 'user' else 1) %}"
    "{{ raise_exception('roles must take turns') }}{% endif %}"
    "{% set who = 'model' if turn['role'] == 'assistant' else turn['role'] %}"
    "{{ '<turn>' + who + '\n' + turn['content'] | trim + '</turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<turn>model\n'}}{% endif %}"
)
TEMPLATES["gemma3"] = r"""{{ bos_token }}
{%- set prefix = "" -%}
{%- set turns = messages -%}
{%- if messages[0]['role'] == 'system' -%}
    {%- set rules = messages[0]['content'] -%}
    {%- set prefix = (rules if rules is string else rules[0]['text']) + '

' -%}
    {%- set turns = messages[1:] -%}
{%- endif -%}
{%- for turn in turns -%}
    {%- if (turn.role == 'user') != (loop.index0 is even) -%}
        {{ raise_exception("roles must take turns") }}
    {%- endif -%}
    {{ '<turn>' ~ {'assistant': 'model'}.get(turn.role, turn.role) ~ '
' ~ (prefix if loop.first else "") }}
    {%- if turn['content'] is string -%}
        {{ turn['content'] | trim }}
    {%- elif turn['content'] is iterable -%}
        {%- for part in turn['content'] -%}
            {%- if part['type'] == 'text' -%}
                {{ part['text'] | trim }}
            {%- elif part['type'] == 'image' -%}
                {{ '<picture>' }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("content of an unknown kind") }}
    {%- endif -%}
    {{ '</turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<turn>model
'}}
{%- endif -%}
"""

# Phi 3 and 4: conditions on content and membership, the end token in place of a prompt.
TEMPLATES["phi3"] = (
    "{% for turn in messages %}{% if turn['role'] != 'system' or turn['content'] %}{% if turn['role'] in ['system', 'user', 'assistant'] %}"
    "{{'<|' + turn['role'] + '|>\n' + turn['content'] + '<|fin|>\n'}}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
TEMPLATES["phi4"] = (
    "{% for turn in messages %}{{ '<|' ~ turn['role'] ~ '|>' + turn['content'] }}"
    "{% if turn['role'] == 'system' and 'tools' in turn and turn['tools'] is not none %}{{ '<|tool|>' + turn['tools'] + '<|/tool|>' }}{% endif %}"
    "{{ '<|fin|>' }}{% endfor %}{{ '<|assistant|>' if add_generation_prompt else eos_token }}"
)

# DeepSeek: state kept in a namespace while the turns pass by; everything before the end of the reasoning is cut.
TEMPLATES["deepseek"] = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set st = namespace(rules='', called=false, answering=false, fresh=true) %}"
    "{%- for turn in messages if turn['role'] == 'system' %}"
    "{% set st.rules = st.rules + ('\\n\\n' if not loop.first else '') + turn['content'] %}{%- endfor %}"
    "{{ bos_token }}{{ st.rules }}"
    "{%- for turn in messages %}"
    "{%- if turn['role'] == 'user' %}{%- set st.answering = false -%}{{'<Q>' + turn['content']}}"
    "{%- elif turn['role'] == 'assistant' and 'tool_calls' in turn %}{%- set st.answering = false -%}"
    "{%- for call in turn['tool_calls'] %}{%- if st.called %}{{'\\n<call>' + call['function']['name'] + '</call>'}}{%- else %}"
    "{%- if turn['content'] is none %}{{'<A><calls><call>' + call['type'] + '|' + call['function']['name'] + '\\n```json\\n' + call['function']['arguments']|tojson + '\\n```</call>'}}"
    "{%- else %}{{'<A>' + turn['content'] + '<calls><call>' + call['function']['name'] + '</call>'}}{%- endif %}"
    "{%- set st.called = true -%}{%- endif %}{%- endfor %}{{'</calls>' + eos_token}}"
    "{%- elif turn['role'] == 'assistant' %}{%- if st.answering %}{{'</results>' + turn['content'] + eos_token}}{%- set st.answering = false -%}"
    "{%- else %}{% set text = turn['content'] %}{% if '</think>' in text %}{% set text = text.split('</think>')[-1] %}{% endif %}{{'<A>' + text + eos_token}}{%- endif %}"
    "{%- elif turn['role'] == 'tool' %}{%- set st.answering = true -%}{{ '<results>' if st.fresh else '\\n' }}{{ '<result>' + turn['content'] + '</result>' }}{%- set st.fresh = false %}"
    "{%- endif %}{%- endfor -%}"
    "{% if st.answering %}{{'</results>'}}{% elif add_generation_prompt %}{{'<A><think>\\n'}}{% endif %}"
)

# Inline conditions without else, a list that grows by addition, documents.
TEMPLATES["command_r"] = r"""{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set turns = messages[1:] %}{% set rules = messages[0]['content'] %}{% elif 1 == 2 %}{% set turns = [] %}{% else %}{% set turns = messages %}{% set rules = false %}{% endif %}
{% if rules != false %}{{ '<|T|><|SYS|>' + rules + '<|/T|>' }}{% endif %}
{% if documents %}
<|T|><|SYS|><results>
{% for document in documents %}
Document: {{ loop.index0 }}
{% for key, value in document.items() %}
{{ key }}: {{ value }}
{% endfor %}
{% if not loop.last %}

{% endif %}
{% endfor %}</results><|/T|>
{%- endif %}
{% set roles = [] %}
{% for message in turns %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{% set content = message['content'] %}
{% set roles = roles + [message.role] %}
{{ '<|T|><|USER|>' + content.strip() + '<|/T|>' if message['role'] == 'user' }}
{{- '<|T|><|BOT|>' + content.strip() + '<|/T|>' if message['role'] == 'assistant' }}
{% endfor %}
{% if add_generation_prompt %}{{ '<|T|><|BOT|>' }}{% endif %}
"""

# Macros for JSON schemas, the date, generation blocks, loop controls.
TEMPLATES["smol"] = r"""{%- macro type_of(schema, depth=0) -%}
    {%- if schema.enum is defined -%}
        {{- schema.enum | map('tojson') | join(' | ') -}}
    {%- elif schema.type == 'array' -%}
        {{- type_of(schema['items'] if 'items' in schema else {'type': 'any'}, depth + 1) ~ '[]' -}}
    {%- elif schema.type == 'object' -%}
        {{- '{' ~ '\n' -}}
        {%- for name, inner in (schema.properties or {}).items() -%}
            {{- '  ' * (depth + 1) ~ name ~ ('' if name in (schema.required or []) else '?') ~ ': ' ~ type_of(inner, depth + 1) ~ (',' if not loop.last else '') ~ '\n' -}}
        {%- endfor -%}
        {{- '  ' * depth ~ '}' -}}
    {%- elif schema.type is sequence and schema.type is not string -%}
        {{- schema.type | join(' | ') -}}
    {%- elif schema.type in ('integer', 'number') -%}
        {{- 'number' -}}
    {%- else -%}
        {{- schema.type | default('any', true) -}}
    {%- endif -%}
{%- endmacro -%}
{%- macro comment(text, indent) -%}
    {%- for line in text.splitlines() -%}
        {{- indent ~ '// ' ~ line | trim ~ '\n' -}}
    {%- endfor -%}
{%- endmacro -%}
{%- macro section(title) -%}
## {{ title }}
{{ caller() }}
{%- endmacro -%}
{%- set reasoning_mode = reasoning_mode | default('think') -%}
{%- set date = strftime_now('%d %B %Y') -%}
{%- set custom = messages[0].content.split('/system_override')[-1].strip() if messages and messages[0].role == 'system' else '' -%}
{{ '<|start|>system\n' -}}
{% call section('Metadata') -%}
Today: {{ date }}
Mode: /{{ reasoning_mode }}
{% endcall %}
{%- if custom %}{% call section('Custom') %}{{ custom }}{% endcall %}
{% endif %}
{%- if tools %}

namespace functions {
{% for tool in tools %}
{%- set fn = tool.function if tool.function is defined else tool %}

{{ comment(fn.description | default(''), '') -}}
type {{ fn.name }} = (_: {{ type_of(fn.parameters) }}) => any;
{% endfor %}

} // namespace functions
{%- endif %}
{{- '<|end|>\n' }}
{%- for message in messages %}
    {%- if message.role == 'system' %}{% continue %}{% endif %}
    {%- if message.role == 'stop' %}{% break %}{% endif %}
    {%- set content = message.content if message.content is string else (message.content or []) | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('\n') %}
    {%- if message.role == 'assistant' %}
        {{- '<|start|>assistant\n' }}
        {%- generation %}
        {%- if reasoning_mode == 'no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}
        {{- content.lstrip('\n') + '<|end|>\n' }}
        {%- endgeneration %}
    {%- else %}
        {{- '<|start|>' ~ message.role ~ '\n' ~ content ~ '<|end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt -%}
    {{ '<|start|>assistant\n' if reasoning_mode == 'think' else '<|start|>assistant\n<think>\n\n</think>\n' }}
{%- endif -%}
"""

TEMPLATES["chatml"] = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# Statements on lines of their own: what trim_blocks and lstrip_blocks do.
TEMPLATES["zephyr"] = r"""{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>
' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>
'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

CONVERSATIONS = {
    "one": [{"role": "user", "content": "What is 2 + 2?"}],
    "empty": [],
    "turns": [
        {"role": "user", "content": "  Hello there \n"},
        {"role": "assistant", "content": "Hi!\n\nHow can I help?"},
        {"role": "user", "content": "Tell me about <b>Zürich</b> & 東京 🗼."},
    ],
    "system": [
        {"role": "system", "content": "You are terse.\n"},
        {"role": "user", "content": "Say 'hi' and \"bye\"."},
        {"role": "assistant", "content": "hi bye"},
    ],
    "late_system": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}, {"role": "assistant", "content": "c"}, {"role": "system", "content": "d"}],
    "twice": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    "thinking": [
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "<think>\nlong thought\n</think>\n\nAnswer one"},
        {"role": "user", "content": "Second"},
        {"role": "assistant", "reasoning_content": "\nother thought\n", "content": "Answer two"},
    ],
    "thinking_alias": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "thinking": "deep"}],
    "no_content": [{"role": "user"}, {"role": "assistant", "content": "x"}],
    "null_content": [{"role": "user", "content": None}],
    "parts": [
        {"role": "system", "content": [{"type": "text", "text": "Look closely."}]},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}, {"type": "text", "text": "Really?"}]},
    ],
    "calls": [
        {"role": "system", "content": "Use tools."},
        {"role": "user", "content": "Weather in Paris and Rome?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 3, "unit": None, "detail": 1.5}}}]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": "{\"temp\": 21}"},
        {"role": "assistant", "content": "It is 21°."},
        {"role": "user", "content": "Thanks"},
    ],
    "two_calls": [
        {"role": "user", "content": "Compare"},
        {"role": "assistant", "content": "", "tool_calls": [
            {"id": "aaaaaaaaa", "type": "function", "function": {"name": "a", "arguments": {"x": [1, {"y": "é"}]}}},
            {"id": "bbbbbbbbb", "type": "function", "function": {"name": "b", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "aaaaaaaaa", "content": "1"},
        {"role": "tool", "tool_call_id": "bbbbbbbbb", "content": "2"},
    ],
    "odd_role": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "stop", "content": "c"}, {"role": "user", "content": "d"}],
}

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "Weather of a city.\n  Over several days.",
        "parameters": {"type": "object", "properties": {
            "city": {"type": "string", "description": "The city's \"name\" <in English>"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["°C", "°F"]},
            "places": {"type": "array", "items": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]}},
            "either": {"type": ["string", "null"]}},
            "required": ["city"]},
        "return": {"type": "string"}}},
    {"type": "function", "function": {"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}}}},
]

# Variables that a template reads, beyond the prompt switch.
EXTRA = {
    "llama3": [{"tools": TOOLS}, {"tools": TOOLS, "inline_tools": False, "date_string": "1 Jan 2025"}, {"python_tools": ["search", "interpreter", "get_weather"]}],
    "qwen2_5": [{"tools": TOOLS}],
    "qwen3": [{"tools": TOOLS}, {"enable_thinking": False}, {"enable_thinking": True}],
    "mistral_tools": [{"tools": TOOLS}],
    "command_r": [{"documents": [{"title": "One", "text": "First text"}, {"title": "Two", "text": "Second"}]}],
    "smol": [{"tools": TOOLS}, {"reasoning_mode": "no_think"}],
}
WITH_EXTRA = {"one", "calls", "system"}


def cases(name):
    """(conversation name, messages, variables) of one template."""
    for case, messages in CONVERSATIONS.items():
        yield case, messages, {"add_generation_prompt": case != "system"}
    for variables in EXTRA.get(name, []):
        for case in sorted(WITH_EXTRA):
            yield case, CONVERSATIONS[case], {"add_generation_prompt": True, **variables}

"""Small template snippets, each on one feature of Jinja2. templates.py renders them with the real Jinja2."""

VARIABLES = {
    "s": "Hello, World", "empty": "", "uni": "Grüße 👋 日本", "multi": "a\nb\n\nc\n", "i": 7, "neg": -3, "f": 2.5, "big": 1e20, "t": True,
    "n": None, "l": [3, 1, 2], "w": ["b", "A", "c", "a"], "d": {"b": 1, "a": {"x": [1, 2]}, "items": 5}, "nested": [[1, 2], [3, 4]],
    "users": [{"name": "Bo", "age": 3, "on": True}, {"name": "al", "age": 1, "on": False}, {"name": "Cy", "age": 2}],
    "html": "<b>&'\"</b>", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
}

EXPRESSIONS = r"""
1 + 2 * 3
(1 + 2) * 3
7 // 2
-7 // 2
7 % 3
-7 % 3
7 % -3
7 / 2
6 / 2
2 ** 3
2 ** -1
2 ** 3 ** 2
-2 ** 2
7.5 // 2
-7.5 % 2
1 / 0
1 // 0
1 % 0
1.5 / 0
1e3
1e16
1e15
1.0
0.1 + 0.2
1e-5
0.0001
123456789.123456789
1e22
1_000
0x1F
0b101
0o17
10 - 2 - 3
true + 1
true and false
not true
not not 1
0 or 'x'
'' and 'y'
1 and 2
none or false
1 < 2 < 3
1 < 3 < 2
1 == 1.0
true == 1
'a' < 'b'
'a' < 1
[1, 2] < [1, 3]
1 in [1, 2]
'ell' in s
'x' not in s
1 in s
'b' in d
3 in l
1 in none
'a' in ('a', 'b')
none == none
none is none
'a' ~ 1 ~ none ~ true
1 ~ 2
'a' 'b'
"it's"
'say "x"'
['it\'s', "a\"b", 'new\nline', 'tab\t', '\\']
{'a': 1, 'b': [1, 2.0, none, true]}
(1,)
()
(1, 2)
[1, 'a', none, 1.5]
['é', '日本', '\x7f', '\u200b', '\xa0']
'\u00e9\x41\101\q'
'a\
b'
1, 2
[]
{}
{'a': 1}['a']
{1: 'x', 'y': 2}
{'a': 1, 'a': 2}
{[1]: 2}
{(1, 2): 3}
s[0]
s[-1]
s[100]
s[1:4]
s[::-1]
s[::2]
s[5:1:-1]
s[-5:]
s[:-5]
s[10:2]
uni[6]
uni[:7]
uni[::-1]
uni|length
l[::-1]
l[1:]
l[::0]
l[-1]
l[10]
l['x']
l[true]
l[1:'a']
n[1:]
d['b']
d.b
d.a.x
d.a.x[1]
d['a']['x'][0]
d.items
d['items']
d.missing
d.missing.more
d['missing']['more']
missing
missing.attr
missing[0]
missing + 1
missing ~ 'x'
missing == missing
missing == 1
missing < 1
missing or 'default'
missing if missing else 'no'
'yes' if t
'yes' if n
('yes' if n) is defined
1 if t else 2 if n else 3
n.x
n['x']
n.x is defined
n.x.y
i.x
i[0]
s.x
s.upper()
s.lower()
s.title()
s.capitalize()
s.swapcase()
'  x '.strip()
'xxaxx'.strip('x')
'xyaxy'.lstrip('yx')
'xyaxy'.rstrip('xy')
'  x '.lstrip() ~ '|'
'a,b,,c'.split(',')
'a,b,c'.split(',', 1)
' a  b c '.split()
' a  b c '.split(none, 1)
' a  b c '.rsplit(none, 1)
'a,b,c'.rsplit(',', 1)
'a,b,c'.split(sep=',', maxsplit=1)
'abc'.split('')
''.split()
''.split(',')
'a\nb\r\nc\n'.splitlines()
'a\nb\r\nc\n'.splitlines(true)
'a=b=c'.partition('=')
'a=b=c'.rpartition('=')
'abc'.partition('=')
'abc'.rpartition('=')
s.startswith('Hell')
s.startswith(('x', 'He'))
s.startswith(['He'])
s.endswith('ld')
s.endswith(('x', 'y'))
s.startswith('llo', 2)
s.startswith(1)
s.find('o')
s.find('o', 5)
s.find('zz')
s.rfind('o')
s.index('o')
s.index('zz')
uni.find('日')
s.count('l')
s.count('')
s.replace('l', 'L')
s.replace('l', 'L', 1)
s.replace('', '-')
s.replace('Hello', '')
s.join(['a', 'b'])
', '.join(l)
', '.join(w)
', '.join(missing)
''.join(d)
'abc'.center(9, '*')
'abc'.center(8, '*')
'abcd'.center(7, '*')
'5'.zfill(3)
'-5'.zfill(4)
'ab'.ljust(4) ~ '|'
'ab'.rjust(4, '.')
'abc'.isdigit()
'12'.isdigit()
'ab1'.isalnum()
'ab'.isalpha()
' '.isspace()
'Ab'.isupper()
'AB'.isupper()
'ab1'.islower()
'abc'.removeprefix('a')
'abc'.removesuffix('c')
'abc'.removesuffix('x')
'{} {}'.format(1, 'a')
'{0} {1} {0}'.format(1, 2)
'{a} {b}'.format(a=1, b=[1])
'{:>5}|{:<5}|{:^5}'.format('a', 'b', 'c')
'{:05d} {:x} {:,}'.format(42, 255, 1234567)
'{:.2f} {:10.3f}|{:e}'.format(3.14159, 2.5, 12345.678)
'{:.1%}'.format(0.256)
'{!r}'.format('a')
'{{}}'.format()
'{'.format()
'{} {}'.format(1)
'{0.x}'.format(d)
'{0[b]}'.format(d)
'%s and %d' % ('a', 3)
'%s' % 5
'%5.2f|%-5s|%05d' % (3.14159, 'a', 42)
'%(a)s' % {'a': 1}
'%s' % [1, 2]
'%s' % (1,)
'%s %s' % ('a',)
'%s' % ('a', 'b')
'%d' % 'a'
'%x %o %e %g' % (255, 8, 12345.678, 0.0001)
'%%' % ()
'%r' % 'a'
'%c' % 65
'a' % 1
'%s' % none
'a' + 'b'
'a' + 1
'a' * 3
3 * 'ab'
'a' * -1
[1] + [2]
[1] * 2
(1,) + (2,)
[1] + (2,)
[1] - [1]
-'a'
+5
-5
- -5
-(2.5)
--1
not 'a' == 'b'
1 + 1 == 2 and 3 > 2
2 if 1 > 0 else 3
[1, 2, 3][1]
[x, s]
d.keys()
d.values()
{'a': 1}.items()
{'a': 1}.keys()|list
{'a': 1, 'b': 2}.values()|sum
d.get('b')
d.get('zz')
d.get('zz', 'def')
d.get('a').get('x')
{'a': 1}.items()|list
{'a': 1}.items()[0]
{'a': 1}.copy()
{'a': 1}.update({'b': 2})
{'a': 1}.pop('a')
{'a': 1}.update is defined
{'update': 1}.update
{'update': 1}['update']
l.append(1)
l.append is defined
l.index(1)
l.index(9)
l.count(1)
l.copy()
l.sort()
(1, 2).index(2)
range(3)
range(3)|list
range(1, 10, 3)|list
range(5, 0, -2)|list
range(3)[1]
range(10)[2:5]
range(3)|length
2 in range(3)
range(0)|list
range(1, 2, 0)
range(1000000)
range('a')
dict(a=1, b=2)
dict([['a', 1]])
dict({'a': 1}, b=2)
namespace(a=1).a
namespace({'a': 1}, b=2).b
namespace(a=1)
namespace(_a=1)
namespace(a=1)['a']
namespace(a=1).b
s|length
l|length
d|length
n|length
i|length
missing|length
s|count
s|upper
s|lower
s|title
'foo-bar (baz) [x] {y} <z> o\'neil'|title
'FOO bar'|capitalize
'ß ﬁ é'|upper
'ÀÉ'|lower
'ΑΣ'|lower
'  x '|trim ~ '|'
'xxaxx'|trim('x')
n|trim
5|trim
missing|trim ~ '|'
' a '|trim|length
missing|default('d')
n|default('d')
''|default('d')
''|default('d', true)
n|d('d', true)
missing|default
d.missing|default('zz')
0|default(5, boolean=true)
l|first
l|last
[]|first
[]|last
[]|first is defined
s|first
s|last
d|first
d|last
missing|first
missing|last
n|first
{'a': 1}.items()|first
l|sort
l|sort(reverse=true)
w|sort
w|sort(case_sensitive=true)
w|sort(true, true)
users|sort(attribute='age')|map(attribute='name')|list
users|sort(attribute='name')|map(attribute='name')|list
users|sort(attribute='age', reverse=true)|map(attribute='age')|join
users|sort(attribute='on,name')|list
[1, 'a']|sort
d|sort
missing|sort
l|reverse|list
s|reverse
d|reverse|list
l|reverse|length
l|join
l|join(', ')
w|join('-')
[1, none, true, 'a', 1.5]|join('|')
users|join(', ', attribute='name')
users|join(',', 'age')
s|join('.')
n|join
missing|join('x')
d|join
l|list
s|list
d|list
missing|list
n|list
5|list
l|map('string')|list
w|map('upper')|join
users|map(attribute='name')|join(',')
users|map(attribute='on', default='?')|list
users|map(attribute='a.b')|list
users|map(attribute='zz')|list
nested|map(attribute=0)|list
nested|map(attribute='1')|list
nested|map('join', '-')|list
l|map('nofilter')|list
l|map('nofilter') is defined
l|map|list
l|map('default', 3)|list
l|map()|list
missing|map('upper')|list
users|selectattr('on')|map(attribute='name')|list
users|selectattr('on', 'defined')|list|length
users|rejectattr('on')|map(attribute='name')|list
users|selectattr('age', '>', 1)|map(attribute='name')|list
users|selectattr('age', 'gt', 1)|list|length
users|selectattr('name', 'equalto', 'Bo')|list|length
users|selectattr('name', '==', 'Bo')|first
users|selectattr('name', 'in', ['Bo', 'al'])|list|length
users|selectattr('age', 'nosuch')|list
users|selectattr|list
l|select('odd')|list
l|reject('odd')|list
l|select|list
[0, 1, '', 'a', none]|select|list
[0, 1, '', 'a', none]|reject|list
l|select('>', 1)|list
l|select('divisibleby', 2)|list
l|select('odd')
l|select('odd') is iterable
l|select('odd') is sequence
l|select('odd')|length
(l|select('odd')) and 1
['a', 1, 'b']|select('string')|list
messages|selectattr('role', 'equalto', 'user')|list
messages|map(attribute='role')|list
messages|map(attribute='role')|unique|list
[1, 1, 2, 'a', 'A', 1.0]|unique|list
['a', 'A']|unique(true)|list
users|unique(attribute='age')|list|length
[[1], [1]]|unique|list
l|sum
[]|sum
[1.5, 2]|sum
users|sum(attribute='age')
l|sum(start=10)
['a']|sum
[[1], [2]]|sum(start=[])
l|min
l|max
w|min
w|max
users|max(attribute='age')
[]|min
[]|max is defined
l|batch(2)|list
l|batch(2, 0)|list
[1, 2, 3, 4, 5]|slice(2)|list
[1, 2, 3, 4, 5]|slice(3, 0)|list
users|groupby('on', default=false)|list
users|groupby('age')|map(attribute='grouper')|list
users|groupby('age')|map('first')|list
users|groupby('age')|map(attribute='list')|list
d|items|list
d|items
missing|items|list
l|items|list
d|dictsort
{'b': 1, 'A': 2, 'c': 0}|dictsort
{'b': 1, 'A': 2, 'c': 0}|dictsort(true)
{'b': 1, 'A': 2, 'c': 0}|dictsort(false, 'value')
{'b': 1, 'A': 2, 'c': 0}|dictsort(reverse=true)
{'b': 1}|dictsort(by='x')
'a-b-c'|replace('-', '+')
'a-b-c'|replace('-', '+', 1)
'aaa'|replace('a', 'b', count=2)
5|replace(5, 6)
5|string ~ 1
n|string
l|string
'42'|int
'42.7'|int
' 42 '|int
'abc'|int
'abc'|int(9)
'abc'|int(default=none)
'0x1f'|int(0, 16)
'1f'|int(0, 16)
'1_000'|int
'1__0'|int
'-5'|int
'+5'|int
'- 5'|int
''|int
n|int
2.9|int
-2.9|int
true|int
l|int
'1e3'|int
'inf'|int
missing|int
'2.5'|float
'abc'|float
'abc'|float(1.5)
'1e3'|float
3|float
'inf'|float
'nan'|float
n|float
'.5'|float
'5.'|float
'1_0.5'|float
'0x10'|float
missing|float
-5|abs
neg|abs
-2.5|abs
'a'|abs
2.5|round
3.5|round
-2.5|round
2.567|round(2)
2.567|round(1, 'ceil')
2.567|round(1, 'floor')
2.567|round(0, 'ceil')
2|round
25|round(-1)
35|round(-1)
1234.5|round(-2)
2.675|round(2)
2.5|round(method='x')
2.5|round|int
'a'|round
multi|indent
multi|indent(2)
multi|indent(2, true)
multi|indent(2, true, true)
multi|indent('> ')
multi|indent(width=2, first=true)
n|indent
missing|indent
'abc'|center(9) ~ '|'
s|wordcount
'a-b c_d  é'|wordcount
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(11)
'foo bar baz qux'|truncate(11, false, '..', 0)
html|e
html|escape
html|safe
html|e|e
html|forceescape
(html|e) + '<'
'<' + (html|safe)
(html|safe) ~ '<'
[html|safe]
(html|e)|upper
(html|e)|length
(html|safe)|replace('<', '&')
'%s-%s'|format(1, 'a')
'%(a)s'|format(a=1)
'%s'|format(1, a=2)
d|attr('b')
d|attr('get') is callable
s|attr('zz')
l|tojson
d|tojson
s|tojson
uni|tojson
uni|tojson(ensure_ascii=true)
n|tojson
t|tojson
f|tojson
big|tojson
1e16|tojson
1e-7|tojson
'nan'|float|tojson
'-inf'|float|tojson
d|tojson(indent=2)
d|tojson(indent=4)
d|tojson(indent=0)
d|tojson(indent='--')
[]|tojson(indent=2)
{}|tojson(indent=2)
[[], {}]|tojson(indent=2)
d|tojson(separators=(',', ':'))
d|tojson(separators=(',', ':'), indent=1)
d|tojson(sort_keys=true)
{'b': {'z': 1, 'y': 2}, 'a': 1}|tojson(sort_keys=true)
d|tojson(true)
d|tojson(false, 2)
d|tojson(foo=1)
(1, 2)|tojson
html|tojson
'a"b\\c\n\t\r\b\f\x01\x7f/é'|tojson
{1: 2, none: 3, true: 4, 1.5: 5}|tojson
{(1, 2): 3}|tojson
missing|tojson
range(3)|tojson
d.items()|tojson
l|map('string')|tojson
users|tojson
[missing]|tojson
s|nosuchfilter
s|nosuchfilter if false else 1
1 if true else s|nosuchfilter
s is nosuchtest
s is defined
missing is defined
missing is undefined
missing is not defined
n is none
n is not none
s is string
i is string
i is number
f is number
t is number
i is integer
t is integer
f is integer
f is float
i is float
t is boolean
i is boolean
t is true
t is false
i is true
false is false
d is mapping
l is mapping
l is sequence
s is sequence
d is sequence
n is sequence
i is sequence
missing is sequence
l is iterable
s is iterable
d is iterable
n is iterable
i is iterable
missing is iterable
range(2) is sequence
d.items() is sequence
d.items is callable
range is callable
s is callable
missing is callable
i is odd
i is even
i is divisibleby 7
i is divisibleby(2)
i is eq 7
i is equalto(7)
i is ne 7
i is == 7
i is gt 5
i is ge 7
i is lt 5
i is le 7
i is lessthan 8
i is greaterthan 8
i is in [7]
'a' is in 'abc'
'x' is in(['a'])
'abc' is lower
'ABC' is upper
'1' is lower
n is sameas none
l is sameas l
'upper' is filter
'nosuch' is filter
'odd' is test
'nosuch' is test
'a' is string and 1 is number
not s is string
s is not string
s is string is string
'a' is odd
n is odd
(html|e) is escaped
s is escaped
d is defined and d.b is defined and d.zz is not defined
messages[0].role
messages[0]['role'] == 'user'
messages[-1].content
messages[5]
messages[5].role
messages[1:][0].content
messages|length
messages|last
(messages|last).role
(messages|list)[0]['content']
messages[0].role.upper()
loop
varargs is defined
raise_exception('oh no')
raise_exception()
raise_exception(5)
strftime_now('%Y-%m-%d')
strftime_now("%d %b %Y")
strftime_now()
strftime_now(5)
cycler('a', 'b').next()
joiner(', ')()
range(3)|join(',')
[1, 2, 3,]
{'a': 1,}
(1, 2,)
[1 2]
{'a' 1}
{a: 1}
f(
)
(1
[1}
1 +
+ 
* 2
1 if
|upper
s|
s|1
s.
s.1x
s..upper()
a b
'unclosed
$
1 ? 2
s is
s is not
not
{'a': 1}.a
{'a': {'b': 2}}.a.b
{'keys': 1}.keys
{'keys': 1}['keys']
[[1, 2], [3]][0][1]
nested.0.1
nested.0
l.0
s.0
nested[0, 1]
d[missing]
d[n]
d[l]
l[missing]
missing(1)
s(1)
n()
5()
s.upper
s.upper(1)
s.nosuch()
d.nosuch()
'a'.join
dict(1)
dict(a)
s.split(',')[1].strip()
s.split(', ')|last
(s.split(', ')|map('lower')|list)[0]
s|upper|lower|title
s|replace('o', '0')|replace('l', '1')
-1|abs
-(1|abs)
2 * 3|string
'a' ~ 'b'|upper
1 + 2|string|length
not l
not []
[] or {}
l and l[0]
false == 0
'' == false
[] == ()
[1] == [1.0]
{'a': 1} == {'a': 1.0}
(1, 2) == (1, 2)
'1' == 1
none < 1
1 != 2
1 <> 2
3 >= 3 >= 2
'a' in 'abc' in ['abc']
true is true and true == true
True
False
None
none
NONE
9223372036854775807
1.5e3
1.
.5
1e400
5 // 2.0
5.0 // 0.3
-0.0
0.0 * -1
1e308 * 10
2 ** 0.5
2 ** 62
100000 * 100000
3.0 == 3
7.0
1e5
123456789012345680.0
0.1
100.0
1e100
5e-324
1.7976931348623157e308
"""

STATEMENTS = [
    "{% for x in l %}{{ x }},{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }};{% endfor %}",
    "{% for x in l %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }} {% endfor %}",
    "{% for x in l %}{{ loop.cycle('a', 'b') }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.changed(x) }} {% endfor %}",
    "{% for x in l %}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for x in l %}{{ loop.nosuch }}{{ loop.nosuch is defined }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }}{{ loop.last }} {% endfor %}",
    "{% for x in l if x > 5 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [] %}x{% else %}empty{% endfor %}",
    "{% for x in missing %}x{% else %}empty{% endfor %}",
    "{% for x in n %}x{% endfor %}",
    "{% for x in 5 %}x{% endfor %}",
    "{% for x in 'abc' %}{{ x }}.{% endfor %}",
    "{% for x in uni %}{{ x }}.{% endfor %}",
    "{% for k in d %}{{ k }} {% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k, v in d|items %}{{ k }}={{ v }};{{ loop.length }}{% endfor %}",
    "{% for k, v in {'x': 1}.items() %}{{ loop.index }}{{ k }}{{ v }}{% endfor %}",
    "{% for a, b in nested %}{{ a }}{{ b }}{% endfor %}",
    "{% for (a, b) in nested %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, (b, c) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in l %}{{ a }}{% endfor %}",
    "{% for a, b, c in nested %}{{ a }}{% endfor %}",
    "{% for a in nested %}{% for b in a %}{{ loop.index }}{{ b }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for a in nested %}{% set outer = loop %}{% for b in a %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% break %}{% else %}E{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}E{% endfor %}",
    "{% for x in l %}{% if x == 2 %}{% break %}{% endif %}{% else %}E{% endfor %}",
    "{% break %}",
    "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}",
    "{% for x in l %}{% set y = x %}{% endfor %}{{ y is defined }}",
    "{% set y = 0 %}{% for x in l %}{% set y = y + x %}{{ y }} {% endfor %}{{ y }}",
    "{% set ns = namespace(y=0) %}{% for x in l %}{% set ns.y = ns.y + x %}{% endfor %}{{ ns.y }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b is defined }}",
    "{% set ns = namespace() %}{% set ns._a = 1 %}",
    "{% set ns.a = 1 %}",
    "{% set d.b = 1 %}",
    "{% set s.b = 1 %}",
    "{% set ns = namespace(found=false) %}{% for m in messages[::-1] %}{% set i = loop.length - loop.index0 - 1 %}{% if not ns.found and m.role == 'user' %}{% set ns.found = true %}{% set ns.at = i %}{% endif %}{% endfor %}{{ ns.at }}",
    "{% set ns = namespace(a=1, b=2) %}{% set ns.a, ns.b = ns.b, ns.a %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace(go=true) %}{% for x in l if ns.go %}{{ x }}{% set ns.go = false %}{% endfor %}",
    "{% for x in range(3) if loop is defined %}{{ x }}{% endfor %}",
    "{% for x in range(3) %}{{ loop.length }}{% endfor %}",
    "{% for x in l|map('string') %}{{ x }}{{ loop.last }}{{ loop.length }}{% endfor %}",
    "{% set g = l|map('string') %}{% for x in g %}{{ x }}{% endfor %}{% for x in g %}{{ x }}{% else %}done{% endfor %}",
    "{% for loop in l %}{% endfor %}",
    "{% for x in l %}{% set loop = 1 %}{% endfor %}",
    "{% for x in l recursive %}{{ x }}{% endfor %}",
    "{% for x in [[1, [2, [3]]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}@{{ loop.depth }}{% endif %}{% endfor %}",
    "{% for x in l %}{{ loop(x) }}{% endfor %}",
    "{% if t %}a{% endif %}",
    "{% if n %}a{% else %}b{% endif %}",
    "{% if n %}a{% elif t %}b{% else %}c{% endif %}",
    "{% if n %}a{% elif n %}b{% elif i == 7 %}c{% else %}d{% endif %}",
    "{% if missing %}a{% else %}b{% endif %}",
    "{% if missing.x %}a{% endif %}",
    "{% if t: %}a{% endif %}",
    "{% if %}a{% endif %}",
    "{% if t %}a",
    "{% if t %}a{% endfor %}",
    "{% endif %}",
    "{% else %}",
    "{% nosuchtag %}",
    "{% if false %}{{ s|nosuchfilter }}{% endif %}ok",
    "{% if true %}{{ s|nosuchfilter }}{% endif %}ok",
    "{% set x = 1 %}{{ x }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}",
    "{% set x, y = [1] %}",
    "{% set x = 1, 2 %}{{ x }}",
    "{% set x %}a{{ i }}b{% endset %}{{ x }}|{{ x|length }}",
    "{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x | replace('a', 'b') | upper %}abc{% endset %}{{ x }}",
    "{% set x %}{% set z = 5 %}{{ z }}{% endset %}{{ x }}{{ z is defined }}",
    "{% set true = 1 %}",
    "{% set 5 = 1 %}",
    "{% set x %}",
    "{% set x = %}",
    "{% set x = x %}{{ x is defined }}",
    "{% set i = i + 1 %}{{ i }}",
    "{% if true %}{% set q = 1 %}{% endif %}{{ q }}",
    "{% with a = 1, b = i %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% with a = 1 %}{% set q = 2 %}{% endwith %}{{ q is defined }}",
    "{% with %}{% set q = 2 %}{{ q }}{% endwith %}{{ q is defined }}",
    "{% with a = 1, b = a %}{{ b is defined }}{% endwith %}",
    "{% macro m() %}x{% endmacro %}{{ m() }}{{ m() }}",
    "{% macro m(a, b=2) %}{{ a }}-{{ b }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=5, a=4) }}{{ m() }}",
    "{% macro m(a, b=a) %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }}",
    "{% macro m(a) %}{{ a is defined }}{{ a }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, x=3) }}",
    "{% macro m(a) %}{{ a }}{{ varargs|length }}{% endmacro %}{{ m(1, 2, 3) }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}body{% endcall %}",
    "{% macro m() %}[{{ caller(1, 2) }}]{% endmacro %}{% call(a, b) m() %}{{ a }}{{ b }}{{ i }}{% endcall %}",
    "{% macro m(x) %}{{ x }}{{ caller(x * 2) }}{% endmacro %}{% call(y) m(3) %}<{{ y }}>{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}",
    "{% macro m() %}x{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m(caller=none) %}{{ caller is none }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}",
    "{% macro m(caller) %}{{ caller }}{% endmacro %}",
    "{% call s %}{% endcall %}",
    "{% macro fact(k) %}{% if k <= 1 %}1{% else %}{{ k * (fact(k - 1)|int) }}{% endif %}{% endmacro %}{{ fact(10) }}",
    "{% macro m() %}{{ later }}{% endmacro %}{% set later = 5 %}{{ m() }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% set x = 1 %}{% macro m() %}{% set x = 2 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",
    "{% macro m() %}{{ x is defined }}{% endmacro %}{% for x in [1] %}{{ m() }}{% endfor %}",
    "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}",
    "{{ m() }}{% macro m() %}x{% endmacro %}",
    "{% macro m() %}  {{- ' a ' -}}  {% endmacro %}[{{ m() }}]",
    "{% macro m() %}x{% endmacro %}{{ m }}{{ m.name }}{{ m is callable }}",
    "{% macro a() %}a{{ b() }}{% endmacro %}{% macro b() %}b{% endmacro %}{{ a() }}",
    "{% macro m(x) %}{% for y in x %}{{ y }}{{ loop.index }}{% endfor %}{% endmacro %}{% for z in [1] %}{{ m(l) }}{{ loop.index }}{% endfor %}",
    "{% macro rec() %}{{ rec() }}{% endmacro %}{{ rec() }}",
    "{% macro m(d) %}{% for k, v in d.items() %}{% if v is mapping %}{{ k }}{ {{ m(v) }} }{% else %}{{ k }}={{ v }} {% endif %}{% endfor %}{% endmacro %}{{ m(d) }}",
    "{% set parts = ['a'] %}{% set parts = parts + ['b'] %}{{ parts|join(',') }}",
    "{% macro m(*args) %}{% endmacro %}",
    "{{ m(*[1, 2]) }}{% macro m(a, b) %}{% endmacro %}",
    "{% macro m(a, b) %}{{ a }}{{ b }}{% endmacro %}{{ m(*[1, 2]) }}{{ m(**{'a': 3, 'b': 4}) }}{{ m(1, **{'b': 5}) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=2, a=3) }}",
    "{% filter upper %}abc{{ i }}{% endfilter %}",
    "{% filter replace('a', 'b')|upper %}abc{% endfilter %}",
    "{% filter nosuch %}{% endfilter %}",
    "{% filter upper %}{% set q = 1 %}{% endfilter %}{{ q is defined }}",
    "{% generation %}abc{{ i }}{% endgeneration %}",
    "{% generation %}{% set q = 1 %}{% endgeneration %}{{ q is defined }}",
    "{% for x in l %}{%- generation -%} {{ x }} {%- endgeneration -%} {% endfor %}",
    "{% raw %}{{ x }}{% if %}{% endraw %}",
    "{%- raw -%} a {%- endraw -%} b",
    "{% raw %}\n a\n {% endraw %}\nb",
    "{% raw %}abc",
    "{# comment #}a",
    "a {#- comment -#} b",
    "a\n  {# comment #}\nb",
    "{# unclosed",
    "{{ unclosed",
    "{% unclosed",
    "{{ }}",
    "{% %}",
    "{{ 1 }",
    "{ { 1 } }",
    "{{ '}}' }}",
    "{{ '{{' }}",
    "{{ \"%}\" }}",
    "{{ {'a': {'b': 1}} }}",
    "{{ {'a': {}}}}",
    "a\n{% if t %}\nb\n{% endif %}\nc\n",
    "a\n  {% if t %}\n  b\n  {% endif %}\nc\n\n",
    "a\n  {%- if t %}\n  b\n  {%- endif %}\nc",
    "a\n  {% if t -%}\n  b\n  {% endif -%}\nc",
    "a\n  {%+ if t %}\n  b\n  {%+ endif %}\nc",
    "a\n  {% if t +%}\n  b\n  {% endif +%}\nc",
    "  {{ 1 }}  \n  {{- 2 -}}  \n  3",
    "{{ 1 }}\n{{ 2 }}\n",
    "{{ 1 }}\n\n",
    "\n\n{{ 1 }}",
    "{% if t %}\r\na\r\n{% endif %}\r\nb\rc",
    "  {% set x = 1 %}  \n{{ x }}",
    "a {% set x = 1 %} b",
    "a {% set x = 1 %}\n b",
    "\t {% set x = 1 %}\n\tb",
    "{% for x in l %}\n  {{ x }}\n{% endfor %}\n",
    "{%- for x in l %}\n  {{- x }}\n{%- endfor %}\n",
    "{% for x in l -%}\n  {{ x }}\n{%- endfor -%}\n z",
    "{{- 'a' -}}\n\n{{- 'b' }}",
    "x {{-'a'-}} y",
    "{{-5}}",
    "{{ -5 }}",
    "{{+5}}",
    "a\n\n  {#- c #}\n b {# d -#}\n  e",
    "{% if t %}a{% endif %}\n\n{% if t %}b{% endif %}",
    "{{ 'a\nb' }}{{ 'c\\nd' }}",
    "{{ s }}{% if t %}\n{{ s }}{% endif %}",
    "\u00a0{% if t %}x{% endif %}",
    "a\n\u3000{% if t %}x{% endif %}",
    "a \u2003{{- 'x' }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% print 1, 2 %}",
    "{% do l.append(1) %}",
    "{% set x = l.append(4) %}",
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}",
    "{% set j = joiner('; ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] | trim }}{% endfor %}",
    "{% if messages[0]['role'] == 'system' %}{% set sys = messages[0].content %}{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}{{ sys is defined }}{{ rest|length }}",
    "{% set content = messages[0].content if messages[0].content is string else '' %}{{ content }}",
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '\\n' }}{% endfor %}",
    "{% for m in messages %}{{ m.nosuch + 'x' }}{% endfor %}",
    "{% for m in messages %}{{ m.tool_calls }}{% if m.tool_calls %}x{% endif %}{% endfor %}",
    "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(' ') }}",
    "{{ [1, 2] | first | string | length }}",
    "{% set x = {'a': 1} %}{% for k in x %}{{ k }}{{ x[k] }}{% endfor %}",
    "{% set x = dict(a=1, **{'b': 2}) %}{{ x }}",
    "{% set txt = 'a</think>b' %}{{ txt.split('</think>')[-1].lstrip('\\n') }}{{ txt.split('</think>')[0].rstrip('\\n').split('<think>')[-1] }}",
    "{%- set ns = namespace(multi=true, last=messages|length - 1) -%}{%- for message in messages[::-1] -%}{%- set index = (messages|length - 1) - loop.index0 -%}{{ index }}{%- endfor -%}",
    "line {{ 1 }}\nline {{ s|nosuch }}",
    "a\nb\n{{ missing.x }}",
    "a\nb\n{% for x in l %}\n{{ x / 0 }}{% endfor %}",
    "{% set x = 5 %}{% if x is divisibleby 5 and x is odd %}y{% endif %}",
    "{{ 'a' if t else 'b' ~ 'c' }}",
    "{{ ('a' if t else 'b') ~ 'c' }}",
    "{{ 'x' * 3 ~ 'y' }}",
    "{{ 1 if n else 2 if t else 3 }}",
    "{{ l[1:][::-1] }}",
    "{{ (l | sort)[0] }}",
    "{{ l | sort | first }}",
    "{{ {'a':1}.get('a', 2) + 1 }}",
    "{{ loop is defined }}",
    "{% for x in l %}{{ loop is defined }}{% endfor %}",
    "{% for x in l %}{% for y in nested %}{{ loop.index }}{% endfor %}{% else %}{{ loop is defined }}{% endfor %}",
    "{% for x in [] %}{% else %}{{ loop is defined }}{% endfor %}",
    "{% for x in nested %}{% for y in [] %}{% else %}{{ loop.index }}{% endfor %}{% endfor %}",
    "{% set a = [] %}{% set a = a + [1] %}{% set a = a + [2] %}{{ a }}",
    "{{ s }}{# multi\nline\ncomment #}{{ s }}",
    "{{ s -}}   {# c #}   {{- s }}",
    "text {%- if t -%} a {%- endif -%} text",
    "%} }} #} text",
    "{{ '\\'' }}{{ \"\\\"\" }}",
    "{{ 'tab\\there' }}",
    "{{ '\\x4' }}",
    "{{ '\\u00' }}",
    "{{ 1 }}{{ 2 }}\n{% set z = 1 %}\n{% set y = 1 %}\n{{ z }}",
]

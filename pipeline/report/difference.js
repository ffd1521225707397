// What differs between two texts, by words.
const wordsOf = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];
const mostWords = 500;

// For each text the words with a flag: whether the other text lacks them. A longest common subsequence of the part that differs; beyond `mostWords` all of that
// part counts as different.
function difference(left, right) {
  const a = wordsOf(left), b = wordsOf(right);
  let begin = 0;
  while (begin < a.length && begin < b.length && a[begin] === b[begin]) ++begin;
  let end = 0;
  while (end < a.length - begin && end < b.length - begin && a[a.length - 1 - end] === b[b.length - 1 - end]) ++end;
  const middleA = a.slice(begin, a.length - end), middleB = b.slice(begin, b.length - end);
  const own = [middleA.map(() => true), middleB.map(() => true)];
  if (middleA.length <= mostWords && middleB.length <= mostWords) {
    const columns = middleB.length + 1;
    const lengths = new Uint16Array((middleA.length + 1) * columns);
    for (let i = middleA.length - 1; i >= 0; --i) {
      for (let j = middleB.length - 1; j >= 0; --j) {
        lengths[i * columns + j] = middleA[i] === middleB[j] ? lengths[(i + 1) * columns + j + 1] + 1 : Math.max(lengths[(i + 1) * columns + j], lengths[i * columns + j + 1]);
      }
    }
    for (let i = 0, j = 0; i < middleA.length && j < middleB.length;) {
      if (middleA[i] === middleB[j]) { own[0][i++] = false; own[1][j++] = false; }
      else if (lengths[(i + 1) * columns + j] >= lengths[i * columns + j + 1]) ++i;
      else ++j;
    }
  }
  const join = (words, middle, flags) => [...words.slice(0, begin).map((word) => [word, false]), ...middle.map((word, i) => [word, flags[i]]), ...words.slice(words.length - end).map((word) => [word, false])];
  return [join(a, middleA, own[0]), join(b, middleB, own[1])];
}

// Text nodes and marks; neighbours of one kind are one node.
function markedText(words) {
  const out = [];
  for (let i = 0; i < words.length;) {
    let text = "";
    const flag = words[i][1];
    while (i < words.length && words[i][1] === flag) text += words[i++][0];
    out.push(flag ? make("mark", {}, text) : document.createTextNode(text));
  }
  return out;
}

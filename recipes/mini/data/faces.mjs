// Draws the people of MoA Mini's training set and writes them, one JSON object a line.
//
//   npm install facesjs@5.0.3 && node faces.mjs 3000 4 | xz -9e > faces.jsonl.xz
//
// Each identity keeps its head, skin, hair, eyes, nose and ears; each of its variants draws the mouth (expression),
// clothes, accessory and glasses anew. The art is facesjs's (see NOTICE); this file only chooses.
import { once } from 'node:events';
import { faceToSvgString, generate } from 'facesjs';

const [identities = 3000, variants = 4, seed = 20240417] = process.argv.slice(2).map(Number);

// facesjs draws from Math.random, so a seeded one makes the archive reproducible (a counter hashed by Murmur's mixer).
let counter = seed >>> 0;
Math.random = () => {
  counter = (counter + 0x9e3779b9) >>> 0;
  let hash = counter;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32;
};
const chance = (probability) => Math.random() < probability;
const pick = (list) => list[Math.floor(Math.random() * list.length)];

const MOUTHS = { smiling: ['smile', 'smile3', 'smile4', 'smile-closed'], neutral: ['straight', 'closed'], angry: ['angry'] };
const EXPRESSIONS = ['smiling', 'smiling', 'smiling', 'neutral', 'angry'];
// facesjs prefers dark hair; some unusual colours make people easier to tell apart at 128 pixels.
const DYES = ['#e9c46a', '#e9c46a', '#c1440e', '#7f4f24', '#a8a8b3', '#4c8df5', '#e0529c', '#3fae6e', '#8f5bd8'];
const CLOTHES = {
  red: ['#d32f2f', '#ffffff', '#8e1414'],
  blue: ['#1e6fd9', '#ffffff', '#0d2c54'],
  green: ['#2f9e44', '#fff3bf', '#14532d'],
  yellow: ['#fcc419', '#343a40', '#e8590c'],
  purple: ['#7b2cbf', '#e5dbff', '#3c096c'],
  black: ['#343a40', '#ced4da', '#101113'],
  white: ['#f1f3f5', '#868e96', '#495057'],
  orange: ['#f76707', '#fff4e6', '#7f3b08'],
  pink: ['#f06595', '#fff0f6', '#a61e4d'],
  teal: ['#12b886', '#e6fcf5', '#0b5345'],
};
const JERSEYS = ['jersey', 'jersey2', 'jersey4', 'baseball', 'baseball2', 'baseball4', 'football', 'football3', 'hockey', 'hockey3'];
const ACCESSORIES = ['hat', 'hat2', 'headband', 'headband-high'];

function variant(base) {
  const face = structuredClone(base);
  const expression = pick(EXPRESSIONS);
  const clothes = pick(Object.keys(CLOTHES));
  face.mouth = { ...face.mouth, id: pick(MOUTHS[expression]), flip: chance(0.5) };
  face.teamColors = CLOTHES[clothes];
  face.jersey.id = pick(JERSEYS);
  face.accessories.id = chance(0.75) ? 'none' : pick(ACCESSORIES);
  face.glasses.id = chance(0.15) ? pick(['glasses1-primary', 'glasses2-black']) : 'none';
  return { face, expression, clothes, jersey: face.jersey.id, accessory: face.accessories.id, glasses: face.glasses.id !== 'none' };
}

for (let identity = 0; identity < identities; identity++) {
  const gender = chance(0.5) ? 'male' : 'female';
  const base = generate(undefined, { gender });
  if (chance(0.45)) base.hair.color = pick(DYES);
  const attributes = {
    head: base.head.id,
    skin: base.body.color,
    hair: base.hair.id,
    hair_color: base.hair.color,
    eyes: base.eye.id,
    nose: base.nose.id,
    facial_hair: base.facialHair.id,
  };
  for (let index = 0; index < variants; index++) {
    const { face, ...drawn } = variant(base);
    const noun = gender === 'male' ? 'man' : 'woman';
    const line = JSON.stringify({ identity, variant: index, noun, ...drawn, attributes, svg: faceToSvgString(face) });
    if (!process.stdout.write(`${line}\n`)) await once(process.stdout, 'drain');
  }
}

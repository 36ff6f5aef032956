"""Forty short texts, written for this project, that tokenizers and methods are measured on."""

from __future__ import annotations

TEXTS: tuple[str, ...] = (
    # 0 to 23: English prose and technical text. Other tasks score these, so their order and words are part of the data.
    "The ferry was late again, so the two sisters shared an orange on the pier and counted gulls. By the time the ropes "
    "were thrown, they had agreed on a name for the boat they would never own.",
    "A sourdough starter is a small community of yeast and bacteria living in flour and water. Feed it every day, keep "
    "it warm, and it will double in size; forget it in the refrigerator, and it will merely sleep.",
    "When the museum reopened, visitors found that the largest painting had been moved to the basement. The director "
    "explained, somewhat wearily, that daylight had been eating the blue pigment for ninety years.",
    "To replace the filter, switch off the pump, close both valves and unscrew the housing counterclockwise. Check that "
    "the rubber seal is clean before fitting the new cartridge, then open the valves slowly.",
    "Glaciers move because ice deforms under its own weight and slides over wet bedrock. Near the margin, crevasses "
    "open wherever the flow speeds up faster than the brittle surface can stretch.",
    "He had rehearsed the apology on the train, but the kitchen smelled of cinnamon and nobody seemed angry. So he "
    "hung up his coat, washed his hands, and asked whether the potatoes needed peeling.",
    "A hash table stores each key in a bucket chosen by a hash function. If two keys land in the same bucket, the table "
    "must probe another slot or chain the entries, and lookups slow down as the load factor rises.",
    "The committee postponed its decision on the footbridge until the engineers could explain why last winter's repairs "
    "had cracked. Shopkeepers on both banks objected, each blaming the other side's delivery vans.",
    "Bees find their way home by the sun, by polarised skylight and by remembered landmarks. On overcast days they rely "
    "on memory alone, which is why a hive should never be moved just a few metres.",
    "During the night the wind turned, and by morning the harbour was full of ice. Fishermen stood about with their hands "
    "in their pockets, discussing the price of diesel and the stubbornness of the weather.",
    "Photosynthesis captures light energy in sugar molecules: chlorophyll absorbs mostly red and blue light, water is "
    "split, oxygen escapes, and carbon dioxide is fixed by an enzyme that is famously slow.",
    "My grandmother kept her buttons in a biscuit tin, sorted by nothing at all. We children believed that somewhere in "
    "it lay a general's button, and we spent whole rainy afternoons searching for it.",
    "The new tariff does not apply to goods already in transit on the date of publication. Importers who paid a deposit "
    "before that date may request a refund within sixty days, in writing, with copies of the invoices.",
    "A violin's bow hair grips the string because of rosin. The string is dragged sideways, slips back, and is caught "
    "again several hundred times a second; that stick-slip motion is what we hear as a note.",
    "Compilers translate source code in stages: a lexer groups characters into tokens, a parser arranges the tokens into "
    "a tree, and later passes check types, remove redundant work and emit machine instructions.",
    "Nobody in the village remembered who had planted the walnut tree. It leaned over the schoolyard wall, dropped its "
    "fruit on bicycles, and was forgiven every autumn for the sake of the cake.",
    "Vaccines train the immune system without causing the disease. Weeks later, memory cells recognise the real pathogen "
    "quickly, so that an infection which might have been serious passes almost unnoticed.",
    "The goalkeeper misjudged the bounce, the ball rolled over the line, and for a moment the stadium was quieter than a "
    "library. Then the visiting supporters, all eleven of them, began to sing.",
    "Backups are worthless until somebody has restored one. Schedule a rehearsal twice a year, on a spare machine, with a "
    "colleague who did not write the scripts, and note every step that the documentation forgot.",
    "Old maps show an island here, drawn from the report of a single captain. Later surveys found only deep water; the "
    "captain, it seems, had been looking at a bank of fog with the low sun behind it.",
    "Inflation measures how the price of a basket of goods changes, and the argument is always about the basket. "
    "Households that rent, commute and heat with gas may feel twice the rate that a homeowner notices.",
    "Turn left at the bakery, cross the tram lines, and follow the canal until you reach a yellow door without a number. "
    "Ring twice, wait, and do not be alarmed by the parrot, which has opinions about strangers.",
    "In linear regression the residuals should scatter evenly around zero. A funnel shape suggests that the variance grows "
    "with the prediction, and a curve suggests that the straight line was the wrong model to begin with.",
    "She translated the letters slowly, underlining every word she doubted. By spring the dictionary had lost its spine, "
    "and she knew the dead merchant's worries about salt, daughters and leaking roofs by heart.",
    # 24 to 27: programs and their data.
    "def moving_average(values, width):\n    if width < 1:\n        raise ValueError('width must be positive')\n    total = "
    "sum(values[:width])\n    for i in range(width, len(values)):\n        yield total / width\n        total += values[i] - "
    "values[i - width]\n    yield total / width\n",
    'for (const row of await db.query("SELECT id, name FROM users WHERE active = 1")) {\n  const label = '
    "`${row.id}: ${row.name.trim()}`;\n  if (!cache.has(label)) cache.set(label, Date.now());\n}\n",
    '<section class="results" id="table-3">\n  <h2>Results &amp; discussion</h2>\n  <p>See <a '
    'href="/docs/index.html#setup">the setup</a> first.</p>\n  <img src="plot_07.png" alt="error by epoch">\n</section>\n',
    '{"order": 4711, "items": [{"sku": "AX-200", "qty": 3, "price": 19.95}, {"sku": "BZ-017", "qty": 1, "price": '
    '240.0}], "paid": true, "note": null, "created_at": "2021-11-05T08:30:00Z"}',
    # 28 to 30: numbers, units, formulas.
    "On 14 March 1879 the harbour office logged 65,358 crates, 979 barrels and 12.5 tonnes of coal; by 06:45 the next day, "
    "3,204 crates (4.9%) were missing. Call +44 20 7946 0018, reference 2024-000317-B.",
    "Mean 3.14159, sd 0.0027, n = 1024; 95% CI [3.1414, 3.1418]. Table: 17 289 4913 83521 1419857. Ratios 1:2:4:8, "
    "scores 21-18, 19-21, 15-13, version 10.4.0-rc2, checksum 9f86d081884c7d65.",
    "If x > 0 then d/dx (x^2 + 3x - 7) = 2x + 3, so f(4) - f(1) = 24; with a = 9.81 m/s^2 and t = 2.5 s the distance is "
    "0.5 * a * t^2 = 30.66 m. At 25 °C, pH 7.4 and 101.3 kPa, R = 8.314 J/(mol K).",
    # 31 and 32: names.
    "Present: Siobhán O'Callaghan, Nguyễn Thị Minh Khai, Władysław Brzęczyszczykiewicz, Chimamanda Okonkwo, José-María "
    "Ibáñez y Ruiz, Þórunn Guðmundsdóttir, Ayşe Yıldırım and Dr. Mbeki-Lindqvist. Apologies: X. Æ. Quint.",
    "The route passes Llanfairpwllgwyngyll, Szczebrzeszyn, Ouagadougou, Thiruvananthapuram, Saskatoon, Reykjavík, "
    "Antananarivo and Kuala Terengganu, then turns back at the Río Magdalena near Barrancabermeja.",
    # 33 to 38: other languages that put spaces between words.
    "Am Sonntagnachmittag spazierten wir am Flussufer entlang und sprachen über Donaudampfschifffahrtsgesellschaften, "
    "Geschwindigkeitsbegrenzungen und die Frage, ob der Apfelkuchen für alle reichen würde.",
    "Quand il pleuvait, les élèves restaient sous le préau et jouaient aux billes; l'instituteur, qui n'aimait guère le "
    "bruit, fermait la fenêtre et feignait de corriger les dictées jusqu'à la cloche.",
    "Pazar sabahı komşularımız bahçede çay içerken, çocuklar kedinin ağaçtan inemeyeceğini söyleyip duruyordu; oysa kedi "
    "çoktan mutfağa girmiş, masadaki peyniri afiyetle yiyordu.",
    "Утром старый почтальон медленно поднимался по лестнице, останавливался на каждом этаже и читал адреса вслух, чтобы "
    "не перепутать письма соседей.",
    "बारिश रुकते ही बच्चे गली में निकल आए और काग़ज़ की नावें बनाकर पानी में छोड़ने लगे; दादी खिड़की से देखती रहीं और हँसती रहीं।",
    "Yksinäinen polkupyöräilijä pysähtyi järven rannalle, söi voileipänsä ja kuunteli kuikan huutoa; illalla hän kertoi "
    "lapsenlapsilleen, ettei koskaan ollut nähnyt niin tyyntä vettä.",
    # 39: messages.
    "omg the cake 🎂 actually survived the train!! 😂😂 pls tell Mum 👩‍👧 we're ~20 min away 🚂… @Tom u bringing the 🔑s? "
    "#birthday #finally <3 — sent from my phone 📱 🇫🇷➡️🇬🇧",
)
"""40 texts of 150 to 400 bytes in UTF-8, all in languages that separate words by spaces.

24 of plain English (prose, instructions, science, computing), then 4 of code, 3 of numbers, 2 of names, 6 in German, French,
Turkish, Russian, Hindi and Finnish, and 1 of chat with emoji.
"""

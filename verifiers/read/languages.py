"""The table of languages: how each language says "the answer is", "because", "no", and what it puts around a value.

Each language is one entry here. A user adds a mark with :func:`verifiers.read.marks.register_mark`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """Words of one language, in lower case.

    keys:    a text without any of these words has no mark of the language, and needs no further search.
    nouns:   words for an answer ("answer", "respuesta"). A noun with a copula, a colon or a dash is a mark.
    copulas: words that link the noun with the value ("is", "es").
    bare:    whether the noun alone is a mark before a value (答案12).
    reasons: words that begin an explanation after a value ("because").
    ands, ors: words that join values.
    closers: words that end a sentence after its value (です).
    weak:    nouns that count only if no other mark states an answer ("the result is").
    """

    keys: tuple[str, ...]
    nouns: tuple[str, ...]
    copulas: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    ands: tuple[str, ...] = ()
    ors: tuple[str, ...] = ()
    closers: tuple[str, ...] = ()
    bare: bool = False
    weak: tuple[str, ...] = ()


def _language(bare: bool = False, **words: str) -> Language:
    """Build a language. Each list of words is one text, with ``" | "`` between two words."""
    return Language(**{name: tuple(text.split(" | ")) for name, text in words.items()}, bare=bare)


LANGUAGES: dict[str, Language] = {
    "English": _language(
        keys="ans | option | choice | final | result | solution",
        nouns=r"answers? | ans\.? | option | choice",
        copulas=(
            "is | are | was | were | equals? | equal to | comes out (?:to be|to|as) | turns out to be | "
            "works out to(?: be)? | "
            "(?:will|would|should|must|can only|has to|have to|ought to|shall) be | becomes | "
            "came out to(?: be)? | reads | must equal | should equal"
        ),
        reasons=(
            "because | since | (?<!many )(?<!much )as(?! (?:many|much|long|large|old|far|well)) | so "
            "| which | where | given | based on | according to | obtained | but | yet | "
            r"although | though | whereas | while | hence | thus | therefore | "
            r"(?<!divided )(?<!multiplied )by | that is | i\.e\. | e\.g\. | ie | "
            "meaning | namely | not | rather than | instead of | using | from | after | with(?! remainder) | due to | "
            "once | provided | including | via | thanks to | under the (?:condition|assumption) | "
            "assuming | in other words | considering | then | making | leaving | for | when | if | "
            "unless | otherwise | whose | who | "
            "and (?:the|that|this|it|its|so|we|they|he|she|each|every|all|there|is|are|not|then|therefore"
            "|thus|hence|his|her|their|our|both) | "
            "or equivalently | i meant?"
        ),
        ands="and also | as well as | and",
        ors="or | maybe | perhaps | possibly | alternatively",
        weak="results? | solutions? | final (?:value|total|count|number|price|cost) | final",
    ),
    "Chinese": _language(
        keys="答 | 选 | 選 | 结果",
        nouns=(
            "(?:最终|最后|正确|参考|最終|正確)?答案 | 故选择? | 所以选择? | 因此选择? | "
            "应选择? | 本题选 | 正确选项 | 故答案 | 故選 | "
            r"選項?(?=\s?[A-Ea-e]) | 选项?(?=\s?[A-Ea-e]) | 答(?=\s?[:：]) | 选择?(?=\s?[(（]?[A-Ea-e](?![a-z]))"
        ),
        copulas="应该是 | 应该为 | 应该 | 应为 | 应是 | 就是 | 是 | 为 | 為 | 等于 | 等於 | 有",
        reasons="因为 | 由于 | 因為 | 由於 | 其中 | 所以 | 因此 | 即 | 也就是 | 这是 | 這是 | 而 | 故 | 又 | 但",
        ands="和 | 与 | 及",
        ors="或者?",
        bare=True,
        weak="(?:最终|最后)?结果",
    ),
    "Japanese": _language(
        keys="答 | 解",
        nouns="(?:最終的?な?|正しい)?(?:答え|解答|回答|正解|答)",
        copulas="は | が",
        reasons="なぜなら | ので | から | ここで | つまり | すなわち",
        ands="と | および",
        ors="または | もしくは",
        closers="です | である | になります | となります | となる | になる | だ",
    ),
    "Korean": _language(
        keys="답",
        nouns="(?:최종 ?)?(?:정답|답변|답|해답)",
        copulas="은 | 는 | 이",
        reasons="왜냐하면 | 때문에 | 이므로 | 여기서 | 즉",
        ands="그리고 | 와 | 과",
        ors="또는",
        closers="입니다 | 이다 | 이에요 | 예요 | 가 됩니다 | 이 됩니다",
    ),
    "Spanish": _language(
        keys="respuesta | resultado | soluci",
        nouns="respuestas?",
        copulas="es | son | será | es igual a | sería | debe ser",
        reasons=(
            "porque | ya que | pues | puesto que | que | donde | dado que | así que | es decir | "
            "por lo que | y (?:el|la|los|las|que)"
        ),
        ands="y | e",
        ors="o | u",
        weak="resultados? | solución | soluciones",
    ),
    "French": _language(
        keys="réponse | reponse | résultat",
        nouns="r[ée]ponses?",
        copulas="est | sont | sera | vaut | est donc | doit être",
        reasons=(
            "car | parce que | puisque | qui | que | où | étant donné | donc | c'est-à-dire | soit | "
            "et (?:le|la|les|que|il|elle)"
        ),
        ands="et",
        ors="ou",
        weak="résultats?",
    ),
    "German": _language(
        keys="antwort | lösung | ergebnis",
        nouns="antwort(?:en)?",
        copulas="ist | lautet | sind | lauten | beträgt | wäre | ist also | muss sein",
        reasons=(
            r"weil | da | denn | wobei | also | das | die | der | wo | d\.h\. | d\. h\. | "
            "und (?:der|die|das|es|sie|er)"
        ),
        ands="und",
        ors="oder",
        weak="lösung(?:en)? | ergebnis(?:se)?",
    ),
    "Italian": _language(
        keys="risposta | risultato | soluzione",
        nouns="rispost[ae]",
        copulas="è | e' | sono | sarà | è quindi",
        reasons=("perché | poiché | dato che | che | dove | quindi | cioè | siccome | e (?:il|la|lo|i|gli|le|che)"),
        ands="e | ed",
        ors="o | oppure",
        weak="risultato | soluzion[ei]",
    ),
    "Portuguese": _language(
        keys="resposta | resultado | solução",
        nouns="respostas?",
        copulas="é | são | será | é igual a | deve ser",
        reasons="porque | pois | já que | que | onde | dado que | ou seja | então | e (?:o|a|os|as|que)",
        ands="e",
        ors="ou",
        weak="resultados? | solução | soluções",
    ),
    "Dutch": _language(
        keys="antwoord | resultaat | oplossing",
        nouns="antwoord(?:en)?",
        copulas="is | zijn | luidt",
        reasons="omdat | want | waarbij | dus",
        ands="en",
        ors="of",
        weak="resultaat | oplossing(?:en)?",
    ),
    "Russian": _language(
        keys="ответ | результат",
        nouns="(?:правильный |итоговый |окончательный )?ответ(?:ом)?",
        copulas="равен | равна | равно | это | будет | является | составляет | есть",
        reasons=(
            "потому что | так как | поскольку | где | ибо | ведь | то есть | который | которая | "
            "которое | значит | причём | а"
        ),
        ands="и",
        ors="или",
        bare=True,
    ),
    "Ukrainian": _language(
        keys="відповідь",
        nouns="(?:правильна )?відповідь",
        copulas="дорівнює | це | є",
        reasons="тому що | оскільки | бо | де",
        ands="і | та",
        ors="або",
    ),
    "Bulgarian": _language(
        keys="отговор",
        nouns="отговорът?",
        copulas="е | са",
        reasons="защото | тъй като",
        ors="или",
    ),
    "Polish": _language(
        keys="odpowied | wynik",
        nouns="(?:prawidłowa |ostateczna )?odpowiedź | odpowiedz",
        copulas="to | jest | wynosi | brzmi",
        reasons="ponieważ | bo | gdyż | więc | gdzie",
        ands="i",
        ors="lub",
    ),
    "Czech": _language(
        keys="odpověď | výsledek",
        nouns="(?:správná )?odpověď",
        copulas="je | zní",
        reasons="protože | neboť | kde",
        ands="a",
        ors="nebo",
    ),
    "Slovak": _language(
        keys="odpoveď",
        nouns="odpoveď",
        copulas="je | znie",
        reasons="pretože | lebo",
    ),
    "Romanian": _language(
        keys="răspuns | raspuns",
        nouns="răspunsul(?: corect| final)? | raspunsul | răspuns",
        copulas="este | e",
        reasons="deoarece | pentru că | fiindcă | unde",
        ands="și",
        ors="sau",
    ),
    "Hungarian": _language(
        keys="válasz | végeredmény | megoldás",
        nouns="(?:a )?(?:válasz|végeredmény|megoldás)",
        copulas="az?",
        reasons="mert | mivel | hiszen",
    ),
    "Greek": _language(
        keys="απάντηση",
        nouns="(?:η )?(?:τελική )?απάντηση",
        copulas="είναι",
        reasons="επειδή | διότι | γιατί | αφού",
    ),
    "Swedish": _language(
        keys="svar",
        nouns="svaret | svar",
        copulas="är",
        reasons="eftersom | för att | därför att",
        ands="och",
        ors="eller",
    ),
    "Danish": _language(
        keys="svar",
        nouns="svaret | svar",
        copulas="er",
        reasons="fordi | da",
        ands="og",
        ors="eller",
    ),
    "Finnish": _language(
        keys="vastaus",
        nouns="vastaus",
        copulas="on",
        reasons="koska | sillä",
    ),
    "Turkish": _language(
        keys="cevap | yanıt | sonuç",
        nouns="(?:doğru |nihai )?(?:cevap|yanıt)(?:ı)? | sonuç",
        reasons="çünkü | zira",
        ands="ve",
        ors="veya",
        closers="'?[dt][iıuü]r",
        bare=True,
    ),
    "Vietnamese": _language(
        keys="đáp | câu trả lời | kết quả",
        nouns="(?:đáp án|đáp số|câu trả lời|kết quả)(?: đúng| cuối cùng)?",
        copulas="là | bằng",
        reasons="vì | do | bởi vì | trong đó",
        ands="và",
        ors="hoặc",
    ),
    "Indonesian": _language(
        keys="jawab | hasilnya",
        nouns="jawabannya | jawaban(?: akhir(?:nya)?)?(?: yang benar)? | hasilnya",
        copulas="adalah | ialah | yaitu",
        reasons="karena | sebab | dimana",
        ands="dan",
        ors="atau",
    ),
    "Swahili": _language(
        keys="jibu",
        nouns="jibu(?: sahihi| la mwisho)?",
        copulas="ni | litakuwa",
        reasons="kwa sababu | kwa kuwa | ambapo | kwani | maana",
        ands="na",
        ors="au",
    ),
    "Thai": _language(
        keys="ตอบ",
        nouns="คำตอบ(?:ที่ถูกต้อง|สุดท้าย)? | ตอบ",
        copulas="คือ | เท่ากับ | เป็น",
        reasons="เพราะว่า | เพราะ | เนื่องจาก | โดยที่ | ซึ่ง",
        ands="และ",
        ors="หรือ",
        bare=True,
    ),
    "Bengali": _language(
        keys="উত্তর",
        nouns="(?:চূড়ান্ত |সঠিক )?উত্তর(?:টি)?",
        copulas="হল | হলো | হচ্ছে | হবে",
        reasons="কারণ | যেহেতু | যেখানে",
        ands="এবং | ও",
        ors="বা | অথবা",
        bare=True,
    ),
    "Hindi": _language(
        keys="उत्तर | जवाब",
        nouns="(?:सही |अंतिम )?(?:उत्तर|जवाब)",
        copulas="है | होगा",
        reasons="क्योंकि | चूंकि | जहाँ",
        ands="और",
        ors="या",
        closers="है | हैं",
        bare=True,
    ),
    "Telugu": _language(
        keys="సమాధానం | జవాబు",
        nouns="(?:తుది |సరైన )?(?:సమాధానం|జవాబు)",
        copulas="అంటే",
        reasons="ఎందుకంటే | ఎందుకనగా | కాబట్టి",
        ands="మరియు",
        ors="లేదా",
        bare=True,
    ),
    "Tamil": _language(
        keys="பதில் | விடை",
        nouns="(?:இறுதி )?(?:பதில்|விடை)",
        reasons="ஏனெனில்",
        bare=True,
    ),
    "Arabic": _language(
        keys="جابة | جواب | جابه",
        nouns="(?:ال)?(?:إجابة|اجابة|جواب|إجابه)(?: الصحيحة| النهائية| الصحيح| النهائي)?",
        copulas="هي | هو | يساوي",
        reasons="لأن | حيث | لان",
        ands="و",
        ors="أو",
    ),
    "Persian": _language(
        keys="پاسخ | جواب",
        nouns="(?:پاسخ|جواب)(?: نهایی| درست)?",
        copulas="برابر است با | برابر با",
        reasons="زیرا | چون",
        ands="و",
        ors="یا",
        closers="است",
    ),
    "Hebrew": _language(
        keys="תשובה",
        nouns="ה?תשובה(?: הסופית| הנכונה)?",
        copulas="היא | הוא",
        reasons="כי | מכיוון ש",
    ),
}
ENGLISH = LANGUAGES["English"]

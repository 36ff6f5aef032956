"""The 1,000 common English words that LangGame questions are made of, written for this project."""

_BY_LENGTH = """
a I
am an as at be by do go he if in is it me my no of on or so to up us we
act add age ago air all and any arm art ask bad bed big bit box boy bus but buy can car cat cow cut day did dog dry
ear eat egg end eye far few fly for fun get got had has hat her him his hit hot how ice its job key law lay leg let
lie lot low man map may men new not now off oil old one our out own pay put red run sad sat saw say sea see set she
sit six sky son sun ten the too top try two use war was way wet who why win yes yet you
able also area army away baby back ball base bear been best bird blow blue boat body bone book born both busy call
came camp card care case city club cold come cook cool copy corn cost dark data date days dead deep does done door
down draw drop each earn east easy edge else even ever face fact fall fast fear feel feet fell file fill find fine
fire fish five food foot form four free frog from full game gave girl give glad gold gone good grow hair half hall
hand hang hard have head hear heat help here hero hide high hill hold hole home hope hour huge idea into item join
jump just keep kept kick kind king knew know lake land last late lead left less life lift like line list live long
look lost love made main make many mark mean meat meet milk mind miss moon more most move much must name near need
news next nice nine nose note once only open over page park part past plan play poor pull push rain read real rest
rich ride ring rise road rock room rule safe said same sand save seem sell send ship shoe shop show shut side sign
sing size slow snow soft some song soon star stay step stop such sure take talk tall team tell test than that them
then they thin this time tiny told took town tree true turn type unit upon very view wait walk wall want warm weak
week well went were west what when wide wild will wind wish with wood word work year your
about above after again agree alone along among apple apply beach begin below birth black blood board bread break
bring broad brown build carry catch cause chain chair check chief child class clean clear climb clock close cloud
color count court cover cross dance don't dream dress drink drive early earth eight empty enjoy enter every exact
extra field fight final first floor force found fresh front funny glass grand grass great green group guess guide
habit happy heart heavy honey horse hotel house human judge knife large later laugh learn least leave lemon level
light lucky lunch march match maybe metal might model money month mouse mouth movie music never night noise north
novel ocean often order other paint paper party phone piano piece place plain plant point power press price queen
quick quiet quite radio reach ready right river round sense seven shape sheep short since sleep small smart smile
solve sorry sound south space speak spend spoon stand start steel still stone store storm story study sugar sweet
table taste teach thank their there these thing think third those three throw tiger today tooth touch track train
treat truth twice under until usual visit voice watch water where which while white whole woman won't world worry
worth would write wrong young
across action afraid almost always animal annual answer anyone appear around arrive autumn basket beauty become before
behind better beyond borrow bottle bottom branch breath bridge bright button camera castle center change cheese choice
choose circle clever coffee common copper corner cotton couple course custom danger decide design dinner doctor double
driver during easily either eleven energy enough family farmer father finger finish flower follow forest forget future
garden gentle ground happen health honest income inside island ladder leader letter listen little lovely market matter
member memory middle minute mirror moment mostly mother nature notice number office orange parent people pepper person
picnic planet please pocket pretty public puzzle rabbit rather reason record remain repeat report result return safety
school season second secret simple single sister slowly spring square street strong sudden summer symbol system though
ticket travel twelve twenty useful window winter wonder worker yellow
against airport another balance balloon believe beneath between bicycle blanket brother captain century certain
chapter chicken clothes college company compare correct country courage culture current discuss distant evening
example explain express fifteen finally foreign forever general getting healthy helpful herself himself history
holiday hundred husband imagine improve include instead journey kingdom kitchen largest library machine meaning
measure message million morning musical mystery natural neither nothing outside perfect perhaps picture popular
present problem program provide quarter receive replace science section service seventy similar sixteen society
special station strange student subject succeed success suggest support teacher thought through tonight trouble
usually village weather whether whisper without working written
activity alphabet although anything birthday building business calendar children complete computer consider continue
daughter decision describe distance electric elephant envelope everyone exercise favorite festival football friendly
hospital increase innocent interest language magazine medicine midnight mountain movement musician national neighbor
notebook opposite ordinary position possible practice princess probably property question remember sandwich scissors
sentence shoulder solution standard suddenly sunlight surprise together tomorrow treasure triangle umbrella universe
vacation yourself
adventure afternoon agreement beautiful beginning breakfast butterfly challenge character chocolate classroom
community condition dangerous different difficult direction discovery education excellent furniture gentleman
happiness important knowledge necessary newspaper president scientist sometimes structure telephone vegetable
yesterday
collection department dictionary difference discussion everywhere experiment friendship government impossible
literature successful technology television themselves throughout understand university
comfortable development electricity grandmother imagination independent information interesting temperature
"""

WORDS: tuple[str, ...] = tuple(_BY_LENGTH.split())
"""1 to 11 letters (the apostrophes of ``don't`` and ``won't`` count), no word twice, lower case but for ``I``.

The order is part of the data: a seed draws words by their position here, so moving a word changes every question.
"""

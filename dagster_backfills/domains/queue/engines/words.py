"""English word lists and patterns by which the embedded engine recognizes steps, topics and stop words."""

import re

# Opens a new topic.
TURN = re.compile(
    r"^(?:(?:and|so|ok|okay|now|then)[, ]+)*"
    r"(next|now|finally|lastly|let's|let us (?:look|turn|move)|moving on|we (?:now )?turn to|"
    r"(?:the|our) (?:next|second|third|fourth|last|final) (?:part|topic|section|chapter|subject))\b",
    re.IGNORECASE,
)
# Announces a topic, and is not a step.
ANNOUNCEMENT = re.compile(
    r"\b(let us|let's|we|i) (?:(?:will|now|shall|are going to|want to) )*(look|turn|talk|begin|start|move|discuss)\b",
    re.IGNORECASE,
)
GREETING = re.compile(
    r"^(welcome|hello|hi|good (?:morning|afternoon|evening)|thank you|thanks)\b", re.IGNORECASE
)
DUTY = re.compile(
    r"\b(must|should|shall|need to|needs to|have to|has to|make sure|be sure|ensure|never|always|do not|don't|"
    r"remember to|required)\b",
    re.IGNORECASE,
)
# Connectives before a step's imperative.
LEAD = re.compile(
    r"^(?:(?:and|so|ok|okay|now|then|next|first|second|third|finally|lastly|after that|please)[, ]+)+",
    re.IGNORECASE,
)
WORD = re.compile(r"[a-z][a-z'-]+")

_ABBREVIATIONS = """
mr mrs ms dr st inc ltd co vs e.g i.e fig approx a.m p.m
"""
_ACTION = """
add adjust allow apply ask assign attach begin bring call carry change check choose clean clear click close collect
confirm connect contact continue count cover create cut dispose document do double drain dry empty enter explain fill
find fix follow gather get give go hand hang hold identify inform inspect install keep label leave let lift list load
locate lock log look lower make mark measure mix move notify note open place plug point pour prepare press print pull
push put raise read record release remove repeat replace report reset return review rinse rotate run save scan select
send set sign stand start stay stop store submit switch take tell test tidy tighten touch turn unplug update use verify
wait walk warn wash watch wear wipe write
"""
_STOP_WORDS = """
the a an and or but of to in on at by for with from is are was were be been it its this that these those as if then than
so we you they he she i our your their his her us will would can could should must may might do does did not no there
here have has had all any each every when while what which who how up out into over about after before next now just
also very let finally
"""
ABBREVIATIONS = _ABBREVIATIONS.split()  # their full stop does not end a sentence
ACTION = frozenset(_ACTION.split())
STOP_WORDS = frozenset(_STOP_WORDS.split())

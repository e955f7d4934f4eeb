"""Names for the sample data: schools, subjects and terms, and people from many languages and scripts."""

SCHOOLS = [
    "Northgate College",
    "Lycée des Trois Rivières",
    "Universität am Fluss",
    "東山学院",
    "Escuela del Puerto",
    "Akademia Nadwiślańska",
    "مدرسة النور",
    "St Brigid's",
    "Високий ліцей",
    "Colégio Horizonte",
    "Ελληνικό Σχολείο",
    "Skolen ved Åen",
]
SUBJECTS = [
    "Biology",
    "German B1 (evening)",
    "Algèbre linéaire",
    "Nursing: pharmacology",
    "日本史",
    "Contabilidad 50% online",
    "Web development",
    "Økonomi",
    "History & Civics",
    "Physics for teachers",
    "Matemática discreta",
    "First aid",
    "Български език",
    "Statistics/R",
    "Chemistry",
    "Programming 101",
]
TERMS = ["winter", "spring", "summer", "autumn"]
GIVEN_NAMES = [
    "Aaliyah", "Adébáyò", "Agnieszka", "Aïcha", "Amélie", "Ana", "Anders", "Άννα", "Arjun", "Ayşe",
    "Bảo", "Björn", "Camila", "Chinedu", "Ciarán", "Dagný", "Đorđe", "Elena", "Eszter", "Fatima",
    "Gwendolyn", "Hana", "Håkon", "Ibrahim", "Ildikó", "Ingrid", "Ivan", "Jean-Luc", "João", "José María",
    "Kofi", "Léa", "Linh", "Łukasz", "Mahmoud", "María José", "Mei", "Miłosz", "Nguyệt", "Niamh",
    "Noor", "Oluwaseun", "Óscar", "Priya", "Quỳnh", "Rania", "Renée", "Samuel", "Siobhán", "Søren",
    "Tatiana", "Thabo", "Yusuf", "Zoë", "Žofie", "Дмитро", "Ольга", "נועה", "ليلى", "محمد",
    "अनन्या", "รัตนา", "さくら", "陽翔", "佳怡", "伟", "서연", "지훈", "Մարիամ", "ნინო",
]  # fmt: skip
SURNAMES = [
    "Abebe", "Ağaoğlu", "Almeida", "Andersson", "Björnsdóttir", "Bùi", "Chukwu", "Cohen", "D'Angelo", "da Silva",
    "de la Cruz", "Dvořák", "Eriksson", "Fernández", "García", "Gonçalves", "Haddad", "Ivanova", "Jansen", "Kaya",
    "Kovács", "Kowalczyk", "Łoś", "MacLeod", "Müller", "Mwangi", "Nguyễn", "Ní Bhriain", "O'Connor", "Okafor",
    "Özdemir", "Papadopoulou", "Patel", "Rossi", "Schmidt-Weiß", "Singh", "Smith", "Šimić", "Trần", "van den Berg",
    "Yılmaz", "Zhang", "Коваленко", "Παππάς", "לוי", "العلي", "शर्मा", "ใจดี", "佐藤", "王", "김", "Հակոբյան",
]  # fmt: skip
# Valid IDs that often break programs; the last has 500 characters.
ODD_IDS = [
    "cohort, part 2",
    "50% / evening",
    "第三期",
    'O\'Neill "A"',
    "back\\slash, .. and {}",
    "a|b&c=d?e#f",
    "0123456789" * 50,
]

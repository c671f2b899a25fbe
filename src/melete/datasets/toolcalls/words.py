"""Words that the domains share: places, people, days and things."""

CITIES = [
    "Paris", "London", "Berlin", "Madrid", "Rome", "Vienna", "Prague", "Oslo", "Lisbon", "Dublin", "Athens",
    "Warsaw", "Zurich", "Geneva", "Helsinki", "Stockholm", "Copenhagen", "Brussels", "Amsterdam",
    "Budapest", "Istanbul", "Cairo", "Nairobi", "Lagos", "Tokyo", "Kyoto", "Seoul", "Beijing", "Delhi",
    "Mumbai", "Bangkok", "Singapore", "Sydney", "Auckland", "Toronto", "Montreal", "Boston", "Chicago",
    "Seattle", "Denver", "Austin", "Miami", "Lima", "Bogota", "Santiago", "Havana", "Porto", "Naples",
    "Lyon", "Hamburg",
]  # fmt: skip
PEOPLE = [
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo",
    "Maria", "Noah", "Olivia", "Paul", "Quinn", "Rosa", "Sam", "Tara", "Uma", "Victor", "Wendy", "Xavier",
    "Yara", "Zoe", "Alice", "Bruno", "Carla", "Diego", "Elena", "Frank", "Gina", "Hugo", "Irene", "James",
    "Karim", "Lena", "Marta", "Nina", "Omar", "Priya", "Ravi", "Sofia", "Tom",
]  # fmt: skip
SURNAMES = [
    "Adams", "Baker", "Cohen", "Diaz", "Evans", "Fischer", "Garcia", "Hansen", "Ito", "Jones", "Kumar",
    "Lopez", "Meyer", "Novak", "Owen", "Park", "Reed", "Silva", "Turner", "Weber",
]  # fmt: skip
DAYS = [
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
]  # fmt: skip
HOURS = [f"{hour}:{minute}" for hour in range(8, 20) for minute in ("00", "30")]
GOODS = [
    "lamp", "kettle", "backpack", "chair", "desk", "jacket", "umbrella", "camera", "keyboard", "headset",
    "notebook", "blanket", "tent", "bicycle", "guitar", "clock", "mirror", "toaster", "blender", "scarf",
    "rucksack", "monitor", "printer", "racket", "puzzle", "teapot", "ladder", "drill", "hammer", "wallet",
]  # fmt: skip
TOPICS = [
    "photosynthesis", "black holes", "the Roman Empire", "tides", "volcanoes", "the printing press",
    "vaccines", "glaciers", "bees", "the French Revolution", "coral reefs", "steam engines",
    "the Silk Road", "dinosaurs", "electricity", "the moon", "earthquakes", "jazz", "chess", "origami",
    "whales", "the heart", "bridges", "magnets", "comets", "rice", "the alphabet", "deserts", "owls",
    "penicillin",
]  # fmt: skip
